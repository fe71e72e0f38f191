"""model.lora and adapter folders: what is asked for before anything heavy is imported."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config.checks import validate, warnings
from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import Dtype


@pytest.fixture(scope="module")
def base() -> Any:
    return compose("train", ["model.lora.rank=4"])


def test_adapters_let_the_frozen_weights_be_bfloat16(base: Any) -> None:
    config = copy.deepcopy(base)
    config.model.dtype = Dtype.bfloat16
    assert validate(config, "train") == []
    config.model.lora.rank = 0
    [problem] = validate(config, "train")
    assert "stay in float32" in problem.message


def test_without_peft_one_line_names_the_extra(base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed: importing it raises
    [problem] = validate(base, "train")
    assert problem.message.startswith("model.lora.rank: adapters need peft")
    assert problem.hint == "pip install 'dgpo[lora]'"
    (tmp_path / "adapter_config.json").write_text("{}")
    [problem] = validate(compose("eval", [f"model.path={tmp_path}", "benchmark=digit_chain"]), "eval")
    assert problem.message.startswith(f"model.path={tmp_path}: adapters need peft")


def test_an_adapter_on_top_of_an_adapter_is_refused(base: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    config = copy.deepcopy(base)
    config.model.path = str(tmp_path)
    [problem] = validate(config, "train")
    assert "would train one on top of it" in problem.message


def test_a_model_and_an_adapter_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "adapter_config.json"):
        (tmp_path / name).touch()
    [problem] = validate(compose("eval", [f"model.path={tmp_path}", "benchmark=digit_chain"]), "eval")
    assert "holds a whole model and an adapter" in problem.message


def test_renewing_another_reference_than_the_initial_policy_is_refused(base: Any) -> None:
    config = copy.deepcopy(base)
    config.reference.name, config.reference.path, config.reference.refresh_every = "path", "bundled:tiny", 5
    [problem] = validate(config, "train")
    assert problem.message.startswith("reference.refresh_every=5: under LoRA it renews reference=initial")


@pytest.mark.parametrize(
    ("overrides", "count"),
    [([], 1), (["gating=calibrated"], 1), (["gating=surprisal"], 1), (["gating=uniform"], 0), (["algo=grpo"], 0)],
)
def test_credit_from_a_distance_under_lora_is_warned_of_once(overrides: list[str], count: int) -> None:
    texts = warnings(compose("train", ["model.lora.rank=4", *overrides]), "train")
    assert len(texts) == count
    assert all("2606.00257" in text for text in texts)
    assert warnings(compose("train", overrides), "train") == []
