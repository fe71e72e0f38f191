"""What is read of a job that has ended. Whole sweeps are in sweeps/test_sweep_run.py."""

from __future__ import annotations

import json
from pathlib import Path

from dgpo_cli.jobs import accuracy


def test_a_job_reached_what_its_last_evaluation_on_the_first_benchmark_says(tmp_path: Path) -> None:
    scores = [("a", 0.1), ("b", 0.2), ("a", 0.3), ("b", 0.4)]
    rows = [json.dumps({"benchmark": name, "avg_at_k": {"value": value}}) + "\n" for name, value in scores]
    (tmp_path / "eval.jsonl").write_text("".join(rows))
    assert accuracy(tmp_path) == 0.3
