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


def test_a_real_run_draws_a_panel_that_fits_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a title of 80 columns has room for a short folder and what is trained
    overrides = ["steps=2", "logger=none", "benchmark.limit=8", "rollout.prompts_per_step=2", "data.size=64"]
    argv = [sys.executable, "-m", "dgpo_cli", "train", "hydra.run.dir=run", *overrides]
    written = on_a_terminal(argv, columns=80, lines=24)
    assert "\x1b[2J" not in written  # the screen is never cleared
    drawn = [CONTROL.sub("", line).rstrip("\r") for line in re.split(r"\r?\n|\r", written)]
    framed = [line for line in drawn if line.startswith(("╭", "│", "╰"))]
    assert {len(line) for line in framed} == {80}
    last = "\n".join(framed[-20:])
    assert "2/2" in last
    assert re.search(r"│ now +-", last)
    assert re.search(r"│ held out +[\d.]+% \[.*\] after step 2[,;]", last)
    assert "= reward" in last
    assert re.search(r"^│ reward ", last, re.MULTILINE) is None
    assert "run: dgpo w" in framed[0]  # the folder
    assert "left 0:00" in last
    written_before = "\n".join(drawn)
    for name in ("evaluating after step 0", "step 1: drawing 16 completions", "saving after step 2"):
        assert f"{name} ..." not in written_before  # the panel shows it
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


def test_time_is_left_after_one_step_and_evaluations_are_part_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("reward/mean", "completion/length_mean", "entropy/mean", "credit/ess", "hellinger/mean", "grad_norm")
    row = dict.fromkeys((*keys, "accuracy", "tokens/per_second")) | {"seconds/step": 10.0}
    with TrainingView(10, 1, "title", eval_every=4) as view:
        view.step(row | {"step": 1})  # 9 steps
        view.evaluated({"step": 0, "benchmark": "a", "seconds": 3.0})
        view.evaluated({"step": 0, "benchmark": "b", "seconds": 4.0})
        view.step(row | {"step": 2, "seconds/step": 20.0})  # 8 steps of 15 s, evaluations of 7 s after 4, 8 and 10
        view.step(row | {"step": 10})
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert [line.rpartition("left ")[2] for line in lines] == ["1:30", "2:21", "0:00"]


def test_elsewhere_a_step_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("reward/mean", "accuracy", "completion/length_mean", "entropy/mean", "credit/ess", "hellinger/mean")
    row = dict.fromkeys((*keys, "grad_norm", "tokens/per_second")) | {"step": 1, "accuracy": 0.5}
    with TrainingView(2, 1, "title") as view:
        view.step(row)
        view.note("a note")
    title, step, note = capsys.readouterr().err.splitlines()
    assert (title, note) == ("title", "a note")
    assert step.startswith("step 1/2  reward -  accuracy 50.0%  length -")
