"""Signals to a sweep: which are heard, and that each job gets each of them once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dgpo_cli.jobs import Stopped
from dgpo_cli.sweeps.interruption import PASSED_ON, Interruption

WAITS = "import sys, time; print(flush=True); time.sleep(60)"


def test_every_signal_that_can_save_a_run_is_passed_on_but_one_that_is_ignored() -> None:
    """nohup ignores SIGHUP, and a handler would listen again."""
    before = {number: signal.getsignal(number) for number in PASSED_ON}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with interruption.listening():
            heard = [number for number in PASSED_ON if signal.getsignal(number) == interruption.on_signal]
            assert set(heard) == set(PASSED_ON) - {signal.SIGHUP}
        assert all(signal.getsignal(number) == before[number] for number in heard)
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])


def test_a_signal_that_comes_while_a_job_is_started_reaches_it() -> None:
    interruption = Interruption(raises=True)

    def start() -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE)
        interruption.on_signal(signal.SIGTERM)
        assert child.poll() is None, "held back until the job is known"
        return child

    with interruption.start(start) as child:
        assert child.wait(60) == -signal.SIGTERM
    assert interruption.signal_number == signal.SIGTERM


def test_a_signal_without_a_job_leaves_what_hydra_is_doing() -> None:
    with pytest.raises(Stopped):
        Interruption(raises=True).on_signal(signal.SIGINT)
    ours = Interruption()
    ours.on_signal(signal.SIGINT)
    assert ours.signal_number == signal.SIGINT
