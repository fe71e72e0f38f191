"""What a model option's default command needs by the plan, and the table that says it."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config import keys
from dgpo_cli.config.compose import compose
from dgpo_cli.planning.architecture import Architecture, from_config
from dgpo_cli.planning.batches import Data
from dgpo_cli.planning.fitting import GPU_SIZES
from dgpo_cli.planning.layout import Machine
from dgpo_cli.planning.needs import MOST_GPUS, fewest_gpus, nodes_needed
from dgpo_cli.planning.plan import plan_training
from dgpo_cli.planning.plan_record import Plan

ROOT = Path(__file__).parents[2]
OPTIONS = [name for name in keys.option_files("model") if name not in ("path", "tiny")]


Row = Callable[[str, Any, Architecture], str]


@pytest.fixture(scope="module")
def documented() -> str:
    return (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def row() -> Row:
    need: Row = runpy.run_path(str(ROOT / "benchmarks" / "plan.py"))["need"]
    return need


def sizes(config: Any) -> Architecture:
    found = from_config(config.model.architecture)
    assert found is not None
    return found


def planned(config: Any, gpus: int, gpu_bytes: int) -> Plan:
    machine = Machine(gpus=gpus, gpu_bytes=gpu_bytes)
    return plan_training(config, sizes(config), machine, Data())


@pytest.mark.parametrize("option", OPTIONS)
def test_the_default_command_of_a_model_option_fits_where_the_documentation_says(
    option: str, documented: str, row: Row
) -> None:
    config = compose("train", [f"model={option}"])
    said = re.search(rf"^\| {option} \| (\d+) x (\d+ GB) \|", documented, re.MULTILINE)
    assert said is not None
    gpus, gpu = int(said[1]), said[2]
    made = planned(config, gpus, GPU_SIZES[gpu])
    assert made.fits == {"this GPU": True}
    assert made.layout.processes == gpus
    assert row(option, config, sizes(config)) in documented
    assert f"Defaults fit {gpus} GPU{'s' if gpus > 1 else ''} of {gpu}." in keys.first_comment(
        keys.option_files("model")[option]
    )


@pytest.fixture(scope="module")
def qwen32b() -> Any:
    return compose("train", ["model=qwen32b"])


def test_one_gpu_fewer_than_the_fewest_is_too_few(qwen32b: Any) -> None:
    model = sizes(qwen32b)
    count = fewest_gpus(qwen32b, model, GPU_SIZES["141 GB"])
    assert count is not None
    assert planned(qwen32b, count, GPU_SIZES["141 GB"]).fits == {"this GPU": True}
    assert planned(qwen32b, count - 1, GPU_SIZES["141 GB"]).fits == {"this GPU": False}
    # Whole computers of eight: two of them for any number above eight.
    assert 8 < count <= 16
    assert nodes_needed(qwen32b, model) == (16, "141 GB")


def test_what_no_number_of_gpus_makes_smaller_fits_nowhere(qwen32b: Any) -> None:
    """128 completions of 20,480 tokens: 64 layers x 8 heads x 128 numbers, keys and values, two bytes each."""
    cache = 128 * 20_480 * 64 * 8 * 128 * 2 * 2
    assert cache > GPU_SIZES["141 GB"]
    many = replace(qwen32b, engine=replace(qwen32b.engine, batch_size=128))
    model = sizes(qwen32b)
    assert planned(many, MOST_GPUS, GPU_SIZES["141 GB"]).memory["cache"] > cache
    assert fewest_gpus(many, model, GPU_SIZES["141 GB"]) is None
    assert nodes_needed(many, model) is None


def test_only_sharding_is_asked_about_more_than_one_gpu(qwen32b: Any) -> None:
    whole = replace(qwen32b, strategy=replace(qwen32b.strategy, name="ddp"))
    assert fewest_gpus(whole, sizes(qwen32b), GPU_SIZES["141 GB"]) is None
