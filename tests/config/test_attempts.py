"""A run that its launcher starts again goes on with what an earlier attempt has begun, and with nothing else."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from dgpo_cli.cli import main
from dgpo_cli.command_lines import quoted
from dgpo_cli.config.attempts import begin, continued

TYPED = ["algo=grpo", "hydra.run.dir=out/${now:%H}", "hydra.verbose=true", "overwrite=true"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder whose name means something to Hydra and to a shell."""
    folder = tmp_path / "it's a=b, {c}"
    folder.mkdir()
    (folder / "config.yaml").write_text("")
    return folder


def launched(monkeypatch: pytest.MonkeyPatch, root: Path, attempt: int, *typed: str, rank: int = 0) -> None:
    """As torchrun starts a process: its error file lies in a folder of the attempt, in one of the launcher."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(root / f"attempt_{attempt}" / str(rank) / "error.json"))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("sys.argv", ["dgpo", "train", *typed])


def test_the_next_attempt_resumes_what_this_one_began(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same folder though it was named by the time, and `overwrite=true` is not obeyed again."""
    launched(monkeypatch, tmp_path, 0, *TYPED)
    assert continued("train", TYPED, TYPED) == TYPED
    begin(run)
    assert not capsys.readouterr().err
    launched(monkeypatch, tmp_path, 1, *TYPED)
    first, second = continued("train", TYPED, TYPED)
    assert first == "hydra.verbose=true"
    assert second.startswith("resume='")
    assert capsys.readouterr().err == f"note: started again by the launcher: the run in {run} goes on\n"
    launched(monkeypatch, tmp_path, 1, *TYPED, rank=1)
    assert continued("train", TYPED, TYPED) == TYPED  # it is told by rank 0


def test_what_was_not_begun_is_begun_as_it_was_typed(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(monkeypatch, tmp_path, 0, *TYPED)
    begin(run)
    launched(monkeypatch, tmp_path / "another launcher", 1, *TYPED)
    assert continued("train", TYPED, TYPED) == TYPED
    launched(monkeypatch, tmp_path, 1, *TYPED)
    (run / "config.yaml").unlink()
    assert continued("train", TYPED, TYPED) == TYPED


def test_another_command_in_the_next_attempt_is_checked_against_the_run(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(monkeypatch, tmp_path, 0, *TYPED)
    begin(run)
    launched(monkeypatch, tmp_path, 1, "optim.lr=0.5")
    assert main(["train", "optim.lr=0.5"]) == 2
    assert "optim.lr differs from the run that is continued" in capsys.readouterr().err
    typed = ["resume=elsewhere"]
    assert continued("train", typed, typed) == typed


def test_without_a_folder_of_the_launcher_the_same_command_in_the_same_place_goes_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["algo=grpo", f"hydra.run.dir={quoted(str(run))}"]
    (run / "run.json").write_text(json.dumps({"command": shlex.join(["dgpo", "train", *typed])}))
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert continued("train", typed, typed) == typed
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert continued("train", typed, typed)[0].startswith("resume=")
    other = [*typed, "seed=1"]
    assert continued("train", other, other) == other
