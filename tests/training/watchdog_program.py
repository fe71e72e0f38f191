"""One of two processes of which one hangs or is stopped, started by test_watchdog.py.

Arguments: how rank 1 comes to stand still, and a file that a reward function lies in. Before it is stopped both ranks
take turns at what takes long and is no stall.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dgpo_cli.environment import place
from dgpo_cli.files import sha256, sync
from dgpo_cli.meeting import meet
from dgpo_cli.processes import Processes, join, leave
from dgpo_cli.progress import each, measured, together
from dgpo_cli.rewards.function import FunctionGrader
from dgpo_cli.training.watchdog import Watchdog
from dgpo_cli.types import GradeRequest

STALL_SECONDS = 2.5


def grades(reward: str) -> None:
    """One call that takes longer than a stall, then one that is killed at its deadline, which is longer too."""
    grader = FunctionGrader(f"{reward}:score", timeout_seconds=1.5 * STALL_SECONDS)
    found = grader.grade([GradeRequest("", text, "") for text in ("slow", "hangs")])
    assert [verdict.error for verdict in found] == [None, "timeout"]
    grader.close()


def goes_through_many(_: str) -> None:
    for _item in each(range(6)):
        time.sleep(STALL_SECONDS / 3)


class SlowFile:
    """A file whose disk takes its time over each chunk."""

    def __init__(self, path: Path) -> None:
        self.stream = path.open("rb")

    def read(self, size: int) -> bytes:
        time.sleep(STALL_SECONDS / 2)
        return self.stream.read(size)


def hashes(reward: str) -> None:
    path = Path(reward).with_name(f"large_{os.getpid()}")
    path.write_bytes(bytes(20 << 20))
    with path.open("rb+") as stream:
        sync(stream)
    sha256(SlowFile(path))  # type: ignore[arg-type]


def is_written_by_a_library(reward: str) -> None:
    """Nothing of the package has a say in it: only the bytes show that it gets on."""
    with measured(), Path(reward).with_name(f"file_{os.getpid()}").open("wb") as stream:
        for _ in range(12):
            time.sleep(STALL_SECONDS / 4)
            stream.write(bytes(1 << 20))
            stream.flush()


def hangs(_: str) -> None:
    time.sleep(60)


def hangs_while_it_is_measured(_: str) -> None:
    with measured():
        hangs(_)


def waits_for_a_process_that_never_comes(_: str) -> None:
    with together():
        hangs(_)


def is_stopped(_: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


HEALTHY = (grades, grades, goes_through_many, hashes, is_written_by_a_library)
ILL = (hangs, hangs_while_it_is_measured, waits_for_a_process_that_never_comes, is_stopped)


def work(processes: Processes, rank: int, action: Callable[[str], None], reward: str) -> None:
    """One rank does it while the other waits in a collective."""
    if processes.rank == rank:
        action(reward)
    processes.highest(0)


def main() -> None:
    name, reward = sys.argv[1:]
    here = place()
    assert here is not None
    meeting = meet(here, 60)
    with Watchdog(STALL_SECONDS, here.rank, meeting.board).watching():
        processes = join(meeting, device="cpu", connect_seconds=60)
        if name == "is_stopped":
            for number, healthy in enumerate(HEALTHY):
                work(processes, number % 2, healthy, reward)
            print("all went well", flush=True)
        if here.rank == 1:
            next(ill for ill in ILL if ill.__name__ == name)(reward)
        processes.highest(0)
    leave()


if __name__ == "__main__":
    main()
