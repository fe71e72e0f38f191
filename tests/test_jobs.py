"""Sweeps and their signals: what reaches the running job. Whole sweeps are in test_cli.py."""

from __future__ import annotations

import signal

from dgpo_cli.jobs import PASSED_ON, Sweep, passing_signals_on


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
