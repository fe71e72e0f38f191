"""The table of a sweep: what differs, how far a running job is, and the last table."""

from __future__ import annotations

import json
from pathlib import Path

from dgpo_cli.reporting.sweep_view import JobLine, cells, final_lines, last_row, what_differs


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
    done = JobLine(2, "seed=1", "done", tmp_path, steps=10, accuracy=0.5)
    assert cells(done) == ("2", "seed=1", "done", "-", "50.0%", "-")
    assert last_row(tmp_path / "nothing") == {}


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert final_lines([("a", "long", "x"), ("bb", "c", "yy")]) == ["a   long  x", "bb  c     yy"]
