"""A sweep that is left alone: nine trainings, one that fails and one whose reward hangs, killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.sweeps.sweep_record import DONE, SweepRecord
from dgpo_cli.training.metrics import CLOCKED

QUICK = ["steps=3", "rollout.prompts_per_step=2", "rollout.group_size=2", "benchmark.limit=8", "logger=none"]
QUICK += ["benchmark.reward=exact", "reward.timeout_seconds=2", "checkpoint.every=1", "sweep.retries=1"]
REWARD = """
import time

def score(prompt, completion, answer):
    if answer in completion:  # so is the sample that a reward is tried on before anything starts
        return 1.0
    {special}
    return 0.01 * len(completion)
"""
FAILS, HANGS = 3, 6
SPECIAL = {FAILS: "raise ValueError('no verdict')", HANGS: "time.sleep(3600)"}


def sweep(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "dgpo_cli", "train", "-m", *overrides]
    return subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def table(process: subprocess.Popen[str]) -> list[str]:
    _, err = process.communicate(timeout=3600)
    assert process.returncode == 1, err
    assert "1 of 9 jobs failed: 3" in err
    return err[err.index("job  status") :].splitlines()[:10]


def metrics(job: Path) -> list[dict[str, Any]]:
    """The rows of a job without its clocks."""
    file = job / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [{name: value for name, value in row.items() if not name.startswith(CLOCKED)} for row in rows]


@pytest.mark.slow
def test_a_killed_sweep_ends_in_the_table_of_one_that_was_left_alone(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"r{number}.py").write_text(REWARD.format(special=SPECIAL.get(number, "pass")))
    swept = "reward.path=" + ",".join(f"r{number}.py:score" for number in range(9))
    undisturbed = table(sweep(tmp_path, swept, *QUICK, "hydra.sweep.dir=alone"))

    killed = sweep(tmp_path, swept, *QUICK, "hydra.sweep.dir=killed")
    while True:
        time.sleep(0.05)
        assert killed.poll() is None
        if not (tmp_path / "killed" / "sweep.json").is_file():
            continue
        jobs = SweepRecord.read(tmp_path / "killed").jobs
        half = [job for job in jobs if job.status == "running" and metrics(tmp_path / "killed" / job.folder)]
        if sum(job.status == DONE for job in jobs) >= 3 and half:
            break
    killed.kill()
    killed.communicate()
    again = table(sweep(tmp_path, "resume=killed"))
    assert again == undisturbed
    assert "r6.py" in undisturbed[7]
    assert "done" in undisturbed[7], "a reward that hangs costs samples, not the job"
    for job in SweepRecord.read(tmp_path / "alone").jobs:
        assert metrics(tmp_path / "killed" / job.folder) == metrics(tmp_path / "alone" / job.folder)
