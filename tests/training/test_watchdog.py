"""A process that stands still says where, and ends; one that gets on is left alone."""

from __future__ import annotations

import subprocess
import sys
import time

from dgpo_cli.training.watchdog import STALLED, Watchdog

PROGRAM = """
import time
from dgpo_cli.training.watchdog import Watchdog

def waits_for_ever():
    time.sleep(60)

with Watchdog(0.4, rank=3).watching():
    waits_for_ever()
"""


def test_a_stall_dumps_every_stack_and_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert ended.returncode == STALLED
    assert "rank 3: no progress for 0.4 s" in ended.stderr
    assert "waits_for_ever" in ended.stderr


def test_progress_keeps_it_quiet() -> None:
    watchdog = Watchdog(0.5, rank=0)
    with watchdog.watching():
        for _ in range(12):
            time.sleep(0.1)
            watchdog.beat()
