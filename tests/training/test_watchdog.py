"""A process that stands still says where, and ends; one that gets on, and one that waits for it, are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dgpo_cli import progress
from dgpo_cli.environment import STORE
from dgpo_cli.training.watchdog import STALLED, Watchdog

TWO = Path(__file__).with_name("watchdog_program.py")
ALONE = """
import os, signal, sys, threading, time
from dgpo_cli import progress
from dgpo_cli.training.watchdog import Watchdog

def waits_for_ever():
    time.sleep(60)

def beats_from_another_thread():
    def beats():
        while True:
            progress.beat()
            with progress.within(60), progress.measured():
                time.sleep(0.05)
    threading.Thread(target=beats, daemon=True).start()
    waits_for_ever()

def is_past_its_deadline():
    with progress.within(0.5):
        waits_for_ever()

with Watchdog(0.4, rank=3).watching():
    globals()[sys.argv[1]]()
"""
REWARD = """
import time

def score(prompt, completion, answer):
    time.sleep(60 if completion == "hangs" else 2.5)
    return 1.0
"""


@pytest.mark.parametrize("how", ["waits_for_ever", "beats_from_another_thread", "is_past_its_deadline"])
def test_a_stall_dumps_every_stack_and_ends_the_process(how: str) -> None:
    ended = subprocess.run([sys.executable, "-c", ALONE, how], capture_output=True, text=True, timeout=60)
    assert ended.returncode == STALLED
    assert "rank 3: no progress for 0.4 s" in ended.stderr
    assert "waits_for_ever" in ended.stderr


def test_progress_keeps_it_quiet() -> None:
    with Watchdog(0.5, rank=0).watching():
        for _ in range(12):
            time.sleep(0.1)
            progress.beat()


def two(tmp_path: Path, what: str) -> list[subprocess.Popen[str]]:
    """Ranks 0 and 1 of watchdog_program.py."""
    (tmp_path / "reward.py").write_text(REWARD)
    processes = []
    for rank in range(2):
        environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), STORE: str(tmp_path / "store")}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(TWO), what, str(tmp_path / "reward.py")],
                env=os.environ | environment | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def test_who_works_for_longer_than_a_stall_ends_neither_itself_nor_who_waits(tmp_path: Path) -> None:
    """A reward with a deadline, many small things, a slow disk and a library's large file, on either rank."""
    ended = [(process, *process.communicate(timeout=120)) for process in two(tmp_path, "healthy")]
    assert [said for _, said, _ in ended] == ["done\n", "done\n"], [errors for *_, errors in ended]


@pytest.mark.parametrize(
    ("what", "who", "said"),
    [
        ("hangs", 1, "error: rank 1: no progress for 1.5 s; it stands here:"),
        ("is_stopped", 0, "error: rank 0: rank 1 has given no sign of life for 1.5 s (stopped, or cut off)"),
        pytest.param(
            "hangs_while_it_is_measured",
            1,
            "error: rank 1: no progress for 1.5 s; it stands here:",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "waits_for_a_process_that_never_comes",
            1,
            "error: rank 1: no progress of any process for 1.5 s; it stands here:",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_who_hangs_is_named_with_its_stack(tmp_path: Path, what: str, who: int, said: str) -> None:
    processes = two(tmp_path, what)
    _, errors = processes[who].communicate(timeout=60)
    processes[1 - who].kill()
    processes[1 - who].communicate()
    assert processes[who].returncode == STALLED, errors
    assert said in errors
    assert ("in highest" if who == 0 else f"in {what}") in errors
