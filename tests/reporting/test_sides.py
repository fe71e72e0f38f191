"""What sides are called: whatever makes a run another method stands in its label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run_factory import training

from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.sides import short_labels

PAPER = {"name": "paper", "normalizer": "none", "temperature": 0.5, "control": "none"}
CALIBRATED = {"name": "calibrated", "normalizer": "saturate", "temperature": 1.0, "control": "none"}


def labels(tmp_path: Path, *gatings: dict[str, Any]) -> list[str]:
    runs = [training(tmp_path / str(number), [1], gating=gating) for number, gating in enumerate(gatings)]
    return short_labels(find_runs(runs)[0])


def test_what_an_option_brings_by_itself_is_left_out(tmp_path: Path) -> None:
    assert labels(tmp_path, PAPER, CALIBRATED) == ["gating=paper", "gating=calibrated"]


def test_a_control_and_a_changed_setting_stand_in_the_label(tmp_path: Path) -> None:
    permuted = labels(tmp_path / "1", PAPER, CALIBRATED | {"control": "permute"})
    assert permuted == ["gating=paper", "gating=calibrated gating.control=permute"]
    same = labels(tmp_path / "3", CALIBRATED, CALIBRATED | {"control": "permute"})
    assert same == ["gating.control=none", "gating.control=permute"]
    cooled = labels(tmp_path / "2", PAPER, CALIBRATED | {"temperature": 0.1})
    assert cooled == ["gating=paper gating.temperature=0.5", "gating=calibrated gating.temperature=0.1"]


def test_of_an_option_that_is_not_known_the_control_stands_in_the_label(tmp_path: Path) -> None:
    own = {"name": "my_own", "normalizer": "rank", "temperature": 2.0, "control": "invert"}
    assert labels(tmp_path, PAPER, own)[1] == "gating=my_own gating.control=invert"


def test_values_are_written_as_yaml_does(tmp_path: Path) -> None:
    runs = [training(tmp_path / str(flag), [1], flag=flag, other=[1, flag]) for flag in (True, None)]
    assert short_labels(find_runs(runs)[0]) == ["flag=true other=[1, true]", "flag=null other=[1, null]"]
