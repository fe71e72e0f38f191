"""What a run of several processes ends with, from real processes that end in every way; no training in them."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from dgpo_cli.processes import LostProcess
from dgpo_cli.training import launch
from dgpo_cli.training.launch import Crew, Worker

LOST = f"exit {LostProcess.exit_code}"


def crew_of(*scripts: str) -> Crew:
    crew = Crew()
    for rank, script in enumerate(scripts):
        crew.add(Worker(rank, subprocess.Popen(["sh", "-c", script]), None))
    return crew


def ended(*scripts: str) -> Crew:
    crew = crew_of(*scripts)
    crew.wait()
    return crew


@pytest.mark.parametrize(
    ("scripts", "rank"),
    [
        (["exit 0", "exit 0"], None),
        (["sleep 0.3; exit 2", "exit 2"], 0),  # all raise the same: rank 0 has said it
        (["exit 1", "sleep 0.3; exit 1"], 0),
        ([LOST, "exit 1"], 1),
        ([LOST, LOST, "kill -9 $$"], 2),
        (["exit 1", "sleep 0.3; kill -9 $$"], 1),  # it cannot have been told
        ([LOST, LOST], 0),
    ],
)
def test_the_cause_is_who_was_killed_else_rank_0_else_the_first(scripts: list[str], rank: int | None) -> None:
    cause = ended(*scripts).cause
    assert (None if cause is None else cause.rank) == rank


def listening(tmp_path: Path, *answers: str) -> Crew:
    """Processes that each wait for SIGUSR1 and answer it with a script; without one they are not listening yet."""
    ready = [tmp_path / str(rank) for rank in range(len(answers))]
    crew = crew_of(
        *(
            f"trap '{answer}' USR1; touch {path}; while :; do sleep 0.02; done"
            if answer
            else f"touch {path}; exec sleep 60"
            for answer, path in zip(answers, ready, strict=True)
        )
    )
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in ready):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return crew


def test_after_a_signal_rank_0_has_all_the_time_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LAST_WORDS_SECONDS", 0.2)
    crew = listening(tmp_path, "sleep 1; exit 138", "exit 138")
    crew.pass_on(signal.SIGUSR1)
    crew.wait()
    assert [worker.process.returncode for worker in crew.workers] == [138, 138]
    assert crew.cause is None


def test_who_does_not_notice_a_failure_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LAST_WORDS_SECONDS", 0.2)
    began = time.monotonic()
    crew = ended("exec sleep 60", "exit 1")
    assert time.monotonic() - began < 30
    assert crew.workers[0].process.returncode == -signal.SIGKILL
    assert crew.cause is crew.workers[1]


@pytest.mark.parametrize(
    ("answers", "rank"),
    [
        (["", ""], None),
        (["exit 138", "exit 138"], None),
        ([LOST, ""], None),
        (["exit 1", ""], 0),  # it could not save
    ],
)
def test_a_signal_that_was_passed_on_is_no_failure(tmp_path: Path, answers: list[str], rank: int | None) -> None:
    crew = listening(tmp_path, *answers)
    crew.pass_on(signal.SIGUSR1)
    crew.wait()
    assert len(crew.failed) == 2
    assert (None if crew.cause is None else crew.cause.rank) == rank


def test_who_is_stopped_is_not_waited_for_after_a_failure() -> None:
    began = time.monotonic()
    crew = ended("kill -STOP $$", "sleep 0.5; exit 1")
    assert time.monotonic() - began < launch.LAST_WORDS_SECONDS / 2
    assert crew.cause is crew.workers[1]
