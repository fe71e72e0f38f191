"""Faults against the real `dgpo train`, in processes of its own and with no hook in the product.

A run is killed, stopped or starved of disk, resumed until it is done, and compared with the same run left alone:
metrics.jsonl apart from the clocks, and the final weights bit for bit. What came of it is gathered in TABLE.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dgpo_cli.cli import main
from dgpo_cli.training.lock import NAME as LOCK
from dgpo_cli.training.metrics import CLOCKED

PATIENCE = 240.0  # seconds for anything that is waited for, on a busy machine


@dataclass
class Line:
    """What was tried of one kind of fault and what came of it."""

    tried: int = 0
    survived: int = 0
    steps_lost: list[int] = field(default_factory=list)
    differences: int = 0


TABLE: dict[str, Line] = {}


def line(name: str) -> Line:
    return TABLE.setdefault(name, Line())


def show_table() -> str:
    rows = [("fault", "tried", "survived", "steps lost", "differences")]
    for name, entry in TABLE.items():
        lost = f"{sum(entry.steps_lost)} (at most {max(entry.steps_lost)})" if entry.steps_lost else "-"
        rows.append((name, str(entry.tried), str(entry.survived), lost, str(entry.differences)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


class Session:
    """One process of `dgpo train`."""

    def __init__(self, folder: Path, *overrides: str, env: dict[str, str] | None = None, **options: Any) -> None:
        self.folder = folder
        self.began = time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dgpo_cli", "train", *overrides],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
            **options,
        )

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Until it happened (True) or the process ended (False)."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if happened():
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.002)
        raise AssertionError(f"nothing happened in {self.folder}: {self.end(signal.SIGKILL)}")

    def at_work(self) -> bool:
        """Whether the run's folder is locked by this process or a worker of it: from there on a kill hits the run."""
        try:
            holder = psutil.Process(json.loads((self.folder / LOCK).read_text())["pid"])
            return self.process.pid in [one.pid for one in (holder, *holder.parents())]
        except (OSError, ValueError, psutil.Error):
            return False

    def has_stepped(self) -> bool:
        """Whether this session has finished a step."""
        found = rows(self.folder)
        return bool(found) and found[-1]["time"] > self.began

    def end(self, number: signal.Signals | None = None) -> str:
        """Send a signal, if one is given, wait for the end, and return what was said on stderr."""
        if number is not None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE)
        return str(errors)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(text) for text in lines if text.endswith("}")]


def last_row(folder: Path) -> int:
    found = rows(folder)
    return int(found[-1]["step"]) if found else 0


def saved_step(folder: Path) -> int:
    """The step of the newest complete checkpoint."""
    steps = [int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").glob("step_*")]
    return max(steps, default=0)


def unfinished_checkpoints(folder: Path) -> list[Path]:
    return list((folder / "checkpoints").glob(".tmp_*"))


def differences(left: Path, right: Path) -> list[str]:
    """What distinguishes two finished runs; empty when they are the same run."""
    found = []
    ours, theirs = (
        [{key: value for key, value in row.items() if not key.startswith(CLOCKED)} for row in rows(folder)]
        for folder in (left, right)
    )
    if len(ours) != len(theirs):
        found.append(f"{len(ours)} and {len(theirs)} rows")
    for mine, other in zip(ours, theirs, strict=False):
        found += [f"step {mine['step']}: {key}" for key in {*mine, *other} if mine.get(key) != other.get(key)]
    latest = [(folder / "checkpoints" / "latest").read_text() for folder in (left, right)]
    if latest[0] != latest[1]:
        return [*found, f"latest {latest}"]
    files = [folder / "checkpoints" / latest[0] / "model" / "model.safetensors" for folder in (left, right)]
    if files[0].read_bytes() != files[1].read_bytes():
        found.append("weights")
    evaluated = [
        [json.loads(text)["avg_at_k"] for text in (folder / "eval.jsonl").read_text().splitlines()]
        if (folder / "eval.jsonl").is_file()
        else []
        for folder in (left, right)
    ]
    if evaluated[0] != evaluated[1]:
        found.append("evaluations")
    return found


def launch(folder: Path, settings: list[str], **options: Any) -> Session:
    """Start the run, or go on with it where it can be resumed."""
    if (folder / "config.yaml").is_file():
        return Session(folder, f"resume={folder}", **options)
    return Session(folder, f"hydra.run.dir={folder}", *settings, **options)


def finish(folder: Path, settings: list[str]) -> None:
    session = launch(folder, settings)
    errors = session.end()
    assert session.process.returncode == 0, errors
    assert json.loads((folder / "run.json").read_text())["status"] == "done"


def finish_here(folder: Path, settings: list[str]) -> None:
    """As `finish`, in this process, which has torch already."""
    assert (folder / "config.yaml").is_file()
    assert main(["train", f"resume={folder}"]) == 0


def kill_and_resume(
    name: str,
    whole: Path,
    folder: Path,
    settings: list[str],
    *,
    kills: int,
    moment: Callable[[Session], bool],
    finish: Callable[[Path, list[str]], None] = finish,
) -> int:
    """Kill a run with SIGKILL at `moment` up to `kills` times, resuming in between; then let it end and compare it.

    `moment` waits for it, and is False where the run ended first. Returns the number of kills.
    """
    entry, killed = line(name), 0
    while killed < kills:
        session = launch(folder, settings)
        if not session.wait_for(session.at_work) or not moment(session):
            assert session.end() is not None
            assert session.process.returncode == 0
            break
        session.end(signal.SIGKILL)
        killed += 1
        entry.tried += 1
        entry.steps_lost.append(max(0, last_row(folder) - saved_step(folder)))
    finish(folder, settings)
    found = differences(whole, folder)
    entry.differences += len(found)
    assert not found
    entry.survived += killed
    return killed


def at_random(generator: random.Random, within: float) -> Callable[[Session], bool]:
    """Up to `within` seconds after the first step of the session, or, one time in five, after it took the folder."""

    def moment(session: Session) -> bool:
        if generator.random() < 0.8 and not session.wait_for(session.has_stepped):
            return False
        until = time.monotonic() + generator.uniform(0.0, within)
        return session.wait_for(lambda: time.monotonic() >= until)

    return moment


def while_saving(generator: random.Random, within: float) -> Callable[[Session], bool]:
    """Up to `within` seconds after the temporary folder of a checkpoint appears: the first or the second one."""

    def moment(session: Session) -> bool:
        seen = unfinished_checkpoints(session.folder)  # a kill before this one left it

        def another() -> bool:
            # By its name: if one checkpoint is written right after the other, there is always one. And the one that a
            # kill left is cleared away, and written again.
            nonlocal seen
            found = unfinished_checkpoints(session.folder)
            fresh = [path for path in found if path not in seen]
            seen = [path for path in seen if path in found]
            return bool(fresh)

        for _ in range(generator.choice((1, 2))):
            if not session.wait_for(another):
                return False
            seen = unfinished_checkpoints(session.folder)
        until = time.monotonic() + generator.uniform(0.0, within)
        while time.monotonic() < until and unfinished_checkpoints(session.folder):
            time.sleep(0.001)
        return session.process.poll() is None

    return moment


def damage(file: Path, how: str, generator: random.Random) -> None:
    content = file.read_bytes()
    if how == "truncated":
        file.write_bytes(content[: generator.randrange(len(content))])
    else:
        at = generator.randrange(len(content))
        flipped = bytes([content[at] ^ (1 << generator.randrange(8))])
        file.write_bytes(content[:at] + flipped + content[at + 1 :])


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to
