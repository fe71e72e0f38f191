"""Sweeps and their signals: what reaches the running job. Whole sweeps are in test_cli.py."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from dgpo_cli.jobs import PASSED_ON, Sweep, accuracy, passing_signals_on


def test_every_signal_that_can_save_a_run_is_passed_on_but_one_that_is_ignored() -> None:
    """nohup ignores SIGHUP, and a handler would listen again."""
    before = {number: signal.getsignal(number) for number in PASSED_ON}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sweep = Sweep()
        with passing_signals_on(sweep):
            heard = [number for number in PASSED_ON if signal.getsignal(number) == sweep.on_signal]
            assert set(heard) == set(PASSED_ON) - {signal.SIGHUP}
        assert all(signal.getsignal(number) == before[number] for number in heard)
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])


def test_a_job_reached_what_its_last_evaluation_on_the_first_benchmark_says(tmp_path: Path) -> None:
    scores = [("a", 0.1), ("b", 0.2), ("a", 0.3), ("b", 0.4)]
    rows = [json.dumps({"benchmark": name, "avg_at_k": {"value": value}}) + "\n" for name, value in scores]
    (tmp_path / "eval.jsonl").write_text("".join(rows))
    assert accuracy(tmp_path) == 0.3
