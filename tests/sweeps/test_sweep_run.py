"""Whole sweeps: retries, further seeds, Ctrl-C, and sweeps that are killed with and without their jobs.

Training is a stand-in (sweep_program.py); test_sweeps_long.py has real training.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest
from sweep_program import Start, ended, starts, table, wait_for

from dgpo_cli.sweeps.sweep_record import DONE, SweepRecord


def test_a_failed_job_is_tried_again_and_more_seeds_run_alone(start: Start) -> None:
    code, err = ended(start("seed=1,13,17", "sweep.retries=1", "sweep.jobs_at_once=3", "hydra.sweep.dir=sweep"))
    assert code == 1
    assert table(err) == [
        ["0", "done", "0", "1.0%", "seed=1"],
        ["1", "failed", "1", "-", "seed=13"],
        ["2", "done", "0", "17.0%", "seed=17"],
    ]
    assert "job 3 of 3: started again, exit 1; all that it said: sweep/2_seed-17/job.log" in err
    assert err.count("error: seed 13 is unlucky") == 2, "each attempt says so"
    assert "error: 1 of 3 jobs failed: 1" in err
    folder = "sweep/2_seed-17"
    assert starts("2_seed-17") == [[None, False], [folder, False]], "it goes on where it failed"

    code, err = ended(start("resume=sweep", "seed=1,13,17,5", "sweep.retries=0"))
    assert code == 1
    assert [row[:2] for row in table(err)] == [["0", "done"], ["1", "failed"], ["2", "done"], ["3", "done"]]
    assert [len(starts(name)) for name in ("0_seed-1", "1_seed-13", "2_seed-17", "3_seed-5")] == [1, 3, 2, 1]
    assert "4 jobs, 2 of them done" in err


def test_ctrl_c_saves_every_job_and_starts_no_other(start: Start) -> None:
    process = start("seed=20,21,1", "sweep.jobs_at_once=2", "hydra.sweep.dir=sweep")
    wait_for(process, "0_seed-20/waits", "1_seed-21/waits")
    code, err = ended(start("resume=sweep"))
    assert code == 2
    assert "at work in sweep" in err, "two sweeps in one folder are refused"
    process.send_signal(signal.SIGINT)
    code, err = ended(process)
    assert code == 130
    assert [row[:3] for row in table(err)] == [
        ["0", "interrupted", "130"],
        ["1", "interrupted", "130"],
        ["2", "waiting", "-"],
    ]
    saved = [Path("sweep", name, "saved").read_text() for name in ("0_seed-20", "1_seed-21")]
    assert saved == ["[2]", "[2]"], "each gets the signal once"
    assert "next: dgpo train -m resume=sweep runs the 3 that are left" in err


@pytest.mark.parametrize(
    "machine", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["sweep killed", "machine killed"]
)
def test_a_killed_sweep_leaves_no_job_running_and_goes_on(start: Start, machine: bool) -> None:
    process = start("seed=20,1", "sweep.jobs_at_once=1", "hydra.sweep.dir=sweep")
    wait_for(process, "0_seed-20/waits")
    job = SweepRecord.read(Path("sweep")).jobs[0].process
    assert job is not None
    process.kill()
    if machine:
        psutil.Process(job.pid).kill()
    process.communicate(timeout=60)
    Path("go").touch()
    code, err = ended(start("resume=sweep"))
    assert code == 0
    assert table(err) == [["0", "done", "0", "20.0%", "seed=20"], ["1", "done", "0", "1.0%", "seed=1"]]
    assert Path("sweep", "0_seed-20", "saved").exists() is not machine, "it saves when its sweep is gone"
    assert len(starts("0_seed-20")) == 2
    assert starts("0_seed-20")[1][0] is not None, "and is resumed"
    assert all(one.status == DONE for one in SweepRecord.read(Path("sweep")).jobs)


def test_a_comparison_that_cannot_be_is_refused_and_leaves_no_folder(start: Start) -> None:
    code, err = ended(start("seed=0,1", "sweep.stop_when=decided", "hydra.sweep.dir=sweep"))
    assert code == 2
    assert [line.partition(":")[0] for line in err.splitlines()] == ["sweep", "error", "hint"]
    assert not Path("sweep").exists()


@pytest.mark.slow
def test_seeds_are_added_until_the_comparison_is_decided_and_the_verdicts_end_it(start: Start) -> None:
    """All runs of dapo are ahead: 2/70 with 4 seeds a side is not enough at that look, 2/252 with 5 is."""
    typed = ["algo=grpo,dapo", "seed=0,1,2,3", "sweep.stop_when=decided", "sweep.compare=true", "hydra.sweep.dir=sweep"]
    code, err = ended(start(*typed, "sweep.jobs_at_once=2"))
    assert code == 0
    assert [row[4:6] for row in table(err)][-2:] == [["algo=grpo"], ["algo=dapo"]]
    assert len(table(err)) == 10
    assert "4 of at most 8 seeds a side: algo=dapo and algo=grpo: undecided" in err
    assert "5 of at most 8 seeds a side: algo=dapo better than algo=grpo (+" in err
    assert re.search(r"algo=dapo against algo=grpo, b: \+\d.*, p 0.00794: better", err)
    assert "note: sweep: seeds were added until its comparisons were decided" in err
    assert Path("sweep", "compare", "compare.html").is_file()
