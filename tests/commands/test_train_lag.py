"""`dgpo train rollout.lag=1`: the same numbers on every run, and after every kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dgpo_cli.cli import main
from dgpo_cli.training.metrics import CLOCKED

LAG = ["rollout.lag=1", "steps=4", "checkpoint.every=1", "checkpoint.keep=9", "optim.warmup_steps=0", "benchmark=none"]
REWARD = """
def score(prompt, completion, answer):
    return (0.5 if answer in completion else 0.0) + len(completion) % 3
"""
KINDS: dict[str, list[str]] = {
    "dgpo": [],
    "minibatches, current credit": ["optim.minibatches=2", "optim.epochs=2", "gating.score_policy=current"],
    "dynamic sampling, sequence": ["algo=dapo", "engine.correction=sequence"],
    "own reward, mask": ["reward.path=reward.py:score", "engine.correction=mask", "engine.cap=1.2"],
}
LONG = ("minibatches, current credit", "own reward, mask")  # run by hand

QUICK = ["logger=none", "rollout.prompts_per_step=4", "rollout.group_size=4", "data.size=64"]


def train(folder: Path, *overrides: str) -> int:
    return main(["train", f"hydra.run.dir={folder}", *QUICK, *overrides])


def start(*overrides: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    line = [sys.executable, "-m", "dgpo_cli", "train", *overrides]
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=one)


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run without what the clock decides."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if not key.startswith(CLOCKED)} for row in rows]


def same_run(left: Path, right: Path) -> None:
    """Equal metrics and equal final weights, bit for bit."""
    assert numbers(left) == numbers(right)
    files = [
        sorted((folder / "checkpoints").glob("step_*"))[-1] / "model/model.safetensors" for folder in (left, right)
    ]
    ours, theirs = map(load_file, files)
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)


@pytest.fixture(autouse=True)
def reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reward.py").write_text(REWARD)


@pytest.mark.parametrize("kind", [pytest.param(one, marks=[pytest.mark.slow] * (one in LONG)) for one in KINDS])
def test_it_resumes_exactly_after_each_step(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    assert train(whole, *LAG, *KINDS[kind]) == 0
    for step in (1, 2, 3):
        cut = tmp_path / f"cut_{step}"
        shutil.copytree(whole, cut)
        for later in range(step + 1, 5):
            shutil.rmtree(cut / "checkpoints" / f"step_{later:06d}")
        assert main(["train", f"resume={cut}"]) == 0
        same_run(whole, cut)


def test_two_runs_are_equal_and_only_the_first_step_is_on_policy(tmp_path: Path) -> None:
    assert train(tmp_path / "a", *LAG, "rollout.save=all") == 0
    assert train(tmp_path / "b", *LAG, "rollout.save=all") == 0
    same_run(tmp_path / "a", tmp_path / "b")
    first, *others = numbers(tmp_path / "a")
    assert first["engine/correction_ess"] == 1.0
    assert first["engine/logprob_gap_max"] < 1e-4
    for row in others:
        assert 0.0 < row["engine/correction_ess"] < 1.0
        assert 0.0 <= row["engine/corrected_fraction"] < 1.0
        assert row["engine/logprob_gap_max"] > 1e-3
    assert [steps_that_drew(tmp_path / "a", step) for step in (1, 2, 3, 4)] == [{0}, {0}, {1}, {2}]


def steps_that_drew(folder: Path, step: int) -> set[int]:
    records = map(json.loads, (folder / f"rollouts/step_{step:06d}.jsonl").read_text().splitlines())
    return {record["policy_step"] for record in records}


def test_the_lag_and_its_correction_change_what_is_learned(tmp_path: Path) -> None:
    runs = {"without": LAG[1:], "lag": LAG, "uncorrected": [*LAG, "engine.correction=none"]}
    for name, overrides in runs.items():
        assert train(tmp_path / name, *overrides) == 0
    of = {name: numbers(tmp_path / name) for name in runs}
    assert of["lag"][0] == of["without"][0]
    losses = {name: [row["loss"] for row in rows] for name, rows in of.items()}
    assert losses["lag"][2:] != losses["without"][2:]
    assert losses["lag"][1] != losses["uncorrected"][1]
    assert of["uncorrected"][1]["engine/correction_ess"] is None


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=str)
def test_a_run_that_is_stopped_goes_on_as_if_it_was_not(tmp_path: Path, number: signal.Signals) -> None:
    overrides = [*QUICK, LAG[0], "steps=6", "checkpoint.every=2", "benchmark=none", "optim.warmup_steps=0"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(["train", f"hydra.run.dir={whole}", "strategy.threads=1", *overrides]) == 0
    process = start(f"hydra.run.dir={stopped}", "strategy.threads=1", *overrides)
    wait(stopped, process)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == (-9 if number is signal.SIGKILL else 143)
    assert main(["train", f"resume={stopped}"]) == 0
    same_run(whole, stopped)


def wait(folder: Path, process: Any) -> None:
    """Until three steps are done."""
    file, deadline = folder / "metrics.jsonl", time.monotonic() + 120
    while not (file.is_file() and file.read_text().count("\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lag_of_more_than_a_step_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "rollout.lag=2") == 2
    assert "rollout.lag: expected 0 or 1, got 2" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_one_step_ahead_and_resume(tmp_path: Path) -> None:
    many = ["strategy=ddp", "strategy.num_processes=2", "strategy.device=cpu", "engine.batch_size=6"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(f"hydra.run.dir={whole}", *QUICK, *LAG, *many)
    said = process.communicate(timeout=300)  # closes its pipes
    assert process.returncode == 0, said
    shutil.copytree(whole, cut)
    for later in (3, 4):
        shutil.rmtree(cut / "checkpoints" / f"step_{later:06d}")
    process = start(f"resume={cut}")
    said = process.communicate(timeout=300)  # closes its pipes
    assert process.returncode == 0, said
    same_run(whole, cut)
