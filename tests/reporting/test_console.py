"""The live view of a real run on a real terminal, and the plain lines elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from real_terminal import drained

from dgpo_cli.reporting.console import TrainingView

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(argv: list[str], *, columns: int, lines: int, **environment: str) -> str:
    """What a command writes to stderr where that is a terminal of this size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env=kept | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | environment,
    )
    os.close(slave)
    written = drained(master)
    assert process.wait(60) == 0, written.decode(errors="replace")
    return written.decode()


def test_a_real_run_draws_a_panel_that_fits_and_stays(tmp_path: Path) -> None:
    overrides = ["steps=2", "logger=none", "benchmark.limit=8", "rollout.prompts_per_step=2", "data.size=64"]
    argv = [sys.executable, "-m", "dgpo_cli", "train", f"hydra.run.dir={tmp_path / 'run'}", *overrides]
    written = on_a_terminal(argv, columns=80, lines=24)
    assert "\x1b[2J" not in written  # the screen is never cleared
    drawn = [CONTROL.sub("", line).rstrip("\r") for line in re.split(r"\r?\n|\r", written)]
    framed = [line for line in drawn if line.startswith(("╭", "│", "╰"))]
    assert {len(line) for line in framed} == {80}
    last = "\n".join(framed[-20:])
    assert "2/2" in last
    for name in ("accuracy", "groups", "entropy", "credit/ess", "kl/max", "hellinger", "step time"):
        assert re.search(rf"^│ {name} ", last, re.MULTILINE), name
    assert "digit_chain after step 0: avg@1" in "\n".join(drawn)


REPLAY = """
import json, sys
from dgpo_cli.reporting.console import TrainingView
row = json.loads(sys.argv[1])
earlier = [row | {"step": step, "accuracy": 0.0} for step in range(1, 8)]
with TrainingView(10, 8, "title", earlier) as view:
    for step in (8, 9, 10):
        view.step(row | {"step": step})
"""


def test_a_tiny_terminal_without_colours_gets_few_lines_that_fit() -> None:
    row = '{"accuracy": 0.5, "reward/mean": 0.5, "groups/all_correct": 0.1, "groups/all_wrong": 0.2}'
    written = on_a_terminal([sys.executable, "-c", REPLAY, row], columns=30, lines=5, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", written)
    drawn = [CONTROL.sub("", line) for line in re.split(r"\r?\n|\r", written)]
    assert max(map(len, drawn)) <= 30
    assert any(line.startswith("accuracy") for line in drawn)


def test_a_resumed_run_shows_its_earlier_steps() -> None:
    written = on_a_terminal([sys.executable, "-c", REPLAY, '{"accuracy": 1.0}'], columns=100, lines=30)
    assert "▁▁▁▁▁▁▁███" in CONTROL.sub("", written)


def test_elsewhere_a_step_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("reward/mean", "accuracy", "completion/length_mean", "entropy/mean", "credit/ess", "hellinger/mean")
    row = dict.fromkeys((*keys, "grad_norm", "tokens/per_second")) | {"step": 1, "accuracy": 0.5}
    with TrainingView(2, 1, "title") as view:
        view.step(row)
        view.note("a note")
    title, step, note = capsys.readouterr().err.splitlines()
    assert (title, note) == ("title", "a note")
    assert step.startswith("step 1/2  reward -  accuracy 50.0%  length -")
