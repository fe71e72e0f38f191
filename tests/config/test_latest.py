"""`latest` in place of a run's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgpo_cli.config.latest import with_latest
from dgpo_cli.errors import UsageError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(folder: str, time: int, *, saved: bool = True) -> str:
    (Path(folder) / "checkpoints").mkdir(parents=True)
    (Path(folder) / "config.yaml").touch()
    os.utime(Path(folder) / "config.yaml", (time, time))
    if saved:
        (Path(folder) / "checkpoints" / "latest").touch()
    return folder


def test_it_is_the_newest_run_also_one_of_a_sweep() -> None:
    run("outputs/train/b", 1)
    job = run("outputs/sweep/s/0_seed-0", 2)
    run("outputs/eval/e", 9)
    assert with_latest(["resume=latest", "steps=3"]) == (
        [f"resume={job}", "steps=3"],
        [f"resume: latest is {job}"],
    )
    newer = run("outputs/train/a", 3)
    assert with_latest(["resume=latest"])[0] == [f"resume={newer}"]


def test_a_model_is_that_of_the_newest_run_with_a_checkpoint() -> None:
    saved = run("outputs/train/a", 1)
    run("outputs/train/b", 2, saved=False)
    assert with_latest(["model.path=latest", "reference.path=latest"])[0] == [
        f"model.path={saved}",
        f"reference.path={saved}",
    ]


def test_a_comparison_takes_the_newest_run_or_a_whole_sweep() -> None:
    run("outputs/train/a", 1)
    run("outputs/sweep/s/0_seed-0", 2)
    run("outputs/sweep/s/1_seed-1", 3)
    assert with_latest(["runs=[latest,o/latest]"])[0] == ["runs=[outputs/sweep/s,o/latest]"]
    assert with_latest(["runs=latest"])[0] == ["runs=outputs/sweep/s"]


def test_a_sweep_that_is_continued_is_the_newest_one_also_of_evaluations_or_of_jobs_that_have_not_begun() -> None:
    run("outputs/sweep/a/0_seed-0", 1)
    for name, time in (("a", 2), ("b", 3)):
        file = Path("outputs/sweep") / name / "sweep.json"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time, time))
    assert with_latest(["resume=latest"], multirun=True)[0] == ["resume=outputs/sweep/b"]
    assert with_latest(["resume=latest"])[0] == ["resume=outputs/sweep/a/0_seed-0"]


def test_without_a_run_it_is_refused() -> None:
    with pytest.raises(UsageError, match="no run in outputs/train or outputs/sweep"):
        with_latest(["resume=latest"])
    run("outputs/train/a", 1, saved=False)
    with pytest.raises(UsageError, match="no run with a checkpoint"):
        with_latest(["model.path=latest"])


def test_a_folder_of_that_name_is_itself() -> None:
    Path("latest").mkdir()
    assert with_latest(["model.path=latest"]) == (["model.path=latest"], [])
