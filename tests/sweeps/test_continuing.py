"""`-m resume=SWEEP`: the words of its command, with more values of what it sweeps over and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgpo_cli.config.experiment import Words
from dgpo_cli.errors import UsageError
from dgpo_cli.sweeps.continuing import Continued, continued
from dgpo_cli.sweeps.sweep_record import SweepRecord


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    typed = ["algo=grpo,dapo", "seed=0,1", "steps=2", f"hydra.sweep.dir={tmp_path}"]
    SweepRecord("train", typed, None, ["/options"]).save(tmp_path)
    return tmp_path


def going_on(sweep: Path, *more: str) -> Continued:
    found = continued("train", Words([f"resume={sweep}", *more]), [])
    assert found is not None
    return found


def test_it_is_asked_for_as_before(sweep: Path) -> None:
    found = going_on(sweep)
    assert found.words.overrides == ["algo=grpo,dapo", "seed=0,1", "steps=2"]
    assert (found.folder, found.config_dirs) == (sweep, [Path("/options")])
    assert continued("train", Words(["seed=0,1"]), []) is None


def test_further_values_of_what_is_swept_and_how_it_runs_may_be_typed(sweep: Path) -> None:
    found = going_on(sweep, "seed=0,1,2", "sweep.retries=1")
    assert found.words.overrides == ["algo=grpo,dapo", "steps=2", "seed=0,1,2", "sweep.retries=1"]
    assert found.record.overrides == found.words.overrides, "so that the next one has them, too"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("steps=3", "steps=3: the sweep .* is over algo, seed"),
        ("hydra.sweep.dir=other", "goes on in its own folder"),
    ],
)
def test_anything_else_is_another_sweep(sweep: Path, typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        going_on(sweep, typed)


def test_a_folder_without_a_sweep_is_said(tmp_path: Path, sweep: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "no sweep: it has no sweep.json"), ("nowhere", "no such folder")):
        with pytest.raises(UsageError, match=message):
            going_on(tmp_path / folder)
    with pytest.raises(UsageError, match="a sweep of dgpo train"):
        continued("eval", Words([f"resume={sweep}"]), [])
