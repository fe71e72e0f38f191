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
    time.sleep(60 if completion == "hangs" else 3)
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


def ended(tmp_path: Path, what: str, rank: int) -> tuple[str, str]:
    """What a rank says that ends itself, on stdout and stderr; the other one is killed then."""
    processes = two(tmp_path, what)
    out, errors = processes[rank].communicate(timeout=120)
    processes[1 - rank].kill()
    processes[1 - rank].communicate()
    assert processes[rank].returncode == STALLED, errors
    return out, errors


def test_who_works_for_longer_than_a_stall_is_left_alone_and_who_is_stopped_is_named(tmp_path: Path) -> None:
    """A reward with a deadline, on either rank, many small things, a slow disk, a library's large file.

    Then rank 1 is stopped as a whole, its watchdog too: the one that waits for it says so.
    """
    out, errors = ended(tmp_path, "is_stopped", 0)
    assert out == "all went well\n", errors
    assert "error: rank 0: rank 1 has given no sign of life for 2.5 s (stopped, or cut off)" in errors
    assert "in highest" in errors


@pytest.mark.slow  # that a process ends itself is tested above
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("hangs", "no progress for 2.5 s"),
        ("hangs_while_it_is_measured", "no progress for 2.5 s"),
        ("waits_for_a_process_that_never_comes", "no progress of any process for 2.5 s"),
    ],
)
def test_who_hangs_is_named_with_its_stack(tmp_path: Path, what: str, said: str) -> None:
    _, errors = ended(tmp_path, what, 1)
    assert f"error: rank 1: {said}; it stands here:" in errors
    assert f"in {what}" in errors
