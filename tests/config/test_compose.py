"""From overrides to the typed configuration, and back from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config.compose import complete, compose, hydra_ready, job_folder
from dgpo_cli.config.finish import finish
from dgpo_cli.config.overrides import prepare
from dgpo_cli.config.stored import load, save
from dgpo_cli.errors import ConfigError


def with_user_options(folder: Path, command: str, *texts: str) -> Any:
    request, problems = prepare(command, list(texts), [folder])
    assert not problems
    with hydra_ready(request):
        request, config = complete(request)
        return finish(command, config, request.overrides)


def write(folder: Path, group: str, name: str, text: str) -> None:
    (folder / group).mkdir(exist_ok=True)
    (folder / group / f"{name}.yaml").write_text(text)


def test_a_model_option_stands_for_its_model_as_a_reference() -> None:
    config = compose("train", ["reference=qwen7b"])
    assert (config.reference.name, config.reference.path) == ("path", "Qwen/Qwen2.5-7B")
    assert config.model.name == "tiny"


def test_a_mistyped_override_raises_with_all_problems() -> None:
    with pytest.raises(ConfigError) as raised:
        compose("train", ["optim.lrr=1", "algo=x"])
    assert len(raised.value.problems) == 2
    assert raised.value.exit_code == 2


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = compose("train", ["algo=dapo", "gating.clip=[0.5,2]", "optim.schedule=cosine"])
    save(config, tmp_path / "config.yaml")
    assert load("train", tmp_path / "config.yaml") == config


def test_a_file_that_is_no_configuration_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for text in ("a: [", "unknown: 1", "steps: abc", "- 1"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            load("train", file)


def test_a_user_model_without_data_gets_the_data_of_every_model(tmp_path: Path) -> None:
    write(tmp_path, "model", "mine", "name: mine\npath: Qwen/Qwen2.5-0.5B\n")
    config = with_user_options(tmp_path, "train", "model=mine")
    assert (config.data.name, config.benchmark.name) == ("dapo_math_17k", "aime2024")
    config = with_user_options(tmp_path, "train", "model=mine", "reward=exact", "benchmark=gsm8k", "reference=mine")
    assert (config.data.name, config.reward.name, config.benchmark.name) == ("dapo_math_17k", "exact", "gsm8k")
    assert config.reference.path == "Qwen/Qwen2.5-0.5B"


def test_a_user_option_that_brings_nothing_takes_what_is_typed(tmp_path: Path) -> None:
    write(tmp_path, "data", "mine", "name: mine\npath: org/data\n")
    write(tmp_path, "algo", "mine", "name: mine\nclip_low: 0.1\n")
    config = with_user_options(
        tmp_path, "train", "data=mine", "reward=exact", "benchmark=gsm8k", "algo=mine", "gating=calibrated"
    )
    assert (config.data.path, config.reward.name, config.benchmark.name) == ("org/data", "exact", "gsm8k")
    assert (config.algo.clip_low, config.gating.name) == (0.1, "calibrated")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_lo: 3\n", "algo/mine.yaml: unknown key 'algo.clip_lo'"),
        ("clip_low: abc\n", "algo/mine.yaml: algo.clip_low: expected a number, got 'abc'"),
    ],
)
def test_a_mistake_in_a_user_option_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "algo", "mine", text)
    with pytest.raises(ConfigError, match=message):
        with_user_options(tmp_path, "train", "algo=mine")


def test_a_recipe_sets_options_and_values_and_what_is_typed_wins(tmp_path: Path) -> None:
    recipe = "# @package _global_\ndefaults:\n  - override /algo: dapo\n  - override /model: qwen7b\nsteps: 7\n"
    write(tmp_path, "recipes", "mine", recipe)
    config = with_user_options(tmp_path, "train", "recipe=mine")
    assert (config.algo.name, config.model.name, config.steps) == ("dapo", "qwen7b", 7)
    config = with_user_options(tmp_path, "train", "recipe=mine", "algo=grpo", "steps=9")
    assert (config.algo.name, config.gating.name, config.steps) == ("grpo", "uniform", 9)


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        ("algo=grpo,seed=0", "0_algo-grpo_seed-0"),
        ("data.path=/a b/c=d.jsonl", "0_data.path-a-b-c-d.jsonl"),
        ("", "0"),
    ],
)
def test_folders_of_sweep_jobs(overrides: str, folder: str) -> None:
    assert job_folder(0, overrides) == folder


def test_long_folder_names_are_cut_and_stay_different() -> None:
    one, other = (job_folder(1, f"data.path={'x' * 300}{end}") for end in "ab")
    assert one != other
    assert len(one) < 110
