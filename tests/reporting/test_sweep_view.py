"""The table of a sweep: what differs, how far a running job is, and the last table."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from dgpo_cli.reporting.sweep_view import COLUMNS, JobLine, cells, final_lines, last_row, what_differs
from dgpo_cli.reporting.tables import make_table


def test_what_all_jobs_have_is_not_said() -> None:
    assert what_differs([["algo=grpo", "seed=0", "steps=2"], ["algo=grpo", "seed=1", "steps=2"]]) == [
        "seed=0",
        "seed=1",
    ]
    assert what_differs([["seed=0", "steps=2"]]) == ["seed=0 steps=2"]


def test_a_running_job_shows_its_last_whole_row(tmp_path: Path) -> None:
    """At step 4 of 10 with 5 s a step 30 s are left; a row that is being written does not count yet."""
    row = {"step": 4, "accuracy": 0.25, "seconds/step": 5.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 3}) + "\n" + json.dumps(row) + '\n{"step": 5, "acc')
    running = JobLine(2, "seed=1", "running", tmp_path, steps=10)
    assert cells(running) == ("2", "seed=1", "running", "4/10", "25.0%", "0:30")
    waiting = JobLine(2, "seed=1", "waiting", tmp_path, steps=10)
    assert cells(waiting) == ("2", "seed=1", "waiting", "-", "-", "-")
    assert last_row(tmp_path / "nothing") == {}


def test_a_finished_run_is_one_line_with_its_held_out_accuracy_and_its_time(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 10, "accuracy": 0.25, "seconds/step": 5.0}) + "\n")
    differs = " ".join(["gating.temperature=0.123456789"] * 5)
    done = JobLine(2, differs, "done", tmp_path, steps=10, accuracy=0.5, seconds=100.4)
    assert cells(done) == ("2", differs, "done", "10/10", "50.0%", "took 1:40")
    stream = io.StringIO()
    table = make_table(
        COLUMNS, [cells(done), cells(JobLine(3, "seed=1\n\x1b[2J", "waiting", tmp_path))], cut="what differs"
    )
    Console(file=stream, width=80).print(table)
    head, first, second = [line for line in stream.getvalue().splitlines() if line.strip("┏┓└┘┡┩╇┷━┳┴─")]
    assert "what differs" in head
    assert "…" in first
    assert "50.0%" in first
    assert "took 1:40" in first
    assert "seed=1\\n\\x1b[2J" in second
    assert "waiting" in second


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert final_lines([("a", "long", "x"), ("bb", "c", "yy")]) == ["a   long  x", "bb  c     yy"]
