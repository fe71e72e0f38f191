"""Suggestions for unknown keys: near in spelling and of the same kind, or the same thing by another trainer's name."""

from __future__ import annotations

from typing import Any

import pytest

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.suggestions import (
    NOT_HERE,
    OTHER_METHODS,
    OTHER_NAMES,
    is_other_method,
    nearest_group,
    nearest_key,
    unknown_key_hint,
)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optim.lrr", ["optim.lr"]),
        ("lr", ["optim.lr"]),
        ("group_sze", ["rollout.group_size"]),
        ("algo.entropy_exponent", ["gating.entropy_exponent"]),
        ("learning_rate", ["optim.lr"]),
        ("num_generations", ["rollout.group_size"]),
        ("output_dir", ["hydra.run.dir"]),
        ("model.training.stepps", ["model.training.steps"]),
        ("optim.epoch", ["optim.epochs"]),
        ("temperature", ["gating.temperature", "benchmark.temperature", "rollout.temperature"]),
        ("zzzzzz", []),
        ("epochs", []),
        ("load_in_4bit", []),
        ("warmup_ratio", []),
        ("max_length", []),
        ("n_gpus", []),
    ],
)
def test_the_nearest_key(typed: str, meant: list[str]) -> None:
    assert nearest_key(typed, "train") == meant


@pytest.mark.parametrize(
    ("typed", "value", "meant"),
    [
        ("rankk", 8, ["model.lora.rank"]),
        ("rankk", True, []),
        ("stepss", 3, ["steps"]),
        ("stepss", "adam", []),
        ("overwrit", True, ["overwrite"]),
        ("overwrit", 0.5, []),
        ("optim.beta", [0.9, 0.99], ["optim.betas"]),
        ("optim.schedul", "linear", ["optim.schedule"]),
    ],
)
def test_a_key_that_takes_no_such_value_is_not_suggested(typed: str, value: Any, meant: list[str]) -> None:
    assert nearest_key(typed, "train", [value]) == meant


@pytest.mark.parametrize(
    ("name", "says"), [("epochs", "steps=N"), ("load_in_4bit", "model.quantization=nf4"), ("bf16", "GPU")]
)
def test_another_trainers_word_for_what_is_not_here_is_answered_in_words(name: str, says: str) -> None:
    hint = unknown_key_hint(name, "train", [3])
    assert hint is not None
    assert says in hint
    assert "did you mean" not in hint


def test_every_other_name_leads_to_a_key_and_is_none_itself() -> None:
    known = {key for command in COMMANDS for key in catalogue.keys(command)}
    assert {name for name in OTHER_NAMES.values() if name not in known and not name.startswith("hydra.")} == set()
    assert not known & (OTHER_NAMES.keys() | NOT_HERE.keys())
    assert not OTHER_NAMES.keys() & NOT_HERE.keys()


def test_a_group_is_meant_by_a_longer_word() -> None:
    groups = catalogue.groups("train")
    found = {word: nearest_group(word, groups) for word in ("dataset", "algorithm", "modle", "data_parallel", "x")}
    assert found == {"dataset": "data", "algorithm": "algo", "modle": "model", "data_parallel": None, "x": None}


def test_a_method_of_a_near_name_is_no_misspelling() -> None:
    assert is_other_method("algo", "gdpo")
    assert not is_other_method("algo", "dpao")
    assert not {name for names in OTHER_METHODS.values() for name in names} & set(catalogue.options("algo"))
    assert catalogue.nearest("dpao", catalogue.options("algo")) == "dapo"
