"""`dgpo train optim.states=8bit`: the real command, planned, killed between two steps and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands.test_train import rows, same_run, train
from safetensors.torch import load_file

from dgpo_cli.cli import main

SETTINGS = ("optim.states=8bit", "checkpoint.every=1", "optim.lr=1e-3", "benchmark=none")


def test_a_run_that_stopped_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, *SETTINGS, "steps=3") == 0
    assert train(stopped, *SETTINGS, "steps=2") == 0
    assert main(["train", f"resume={stopped}", "steps=3"]) == 0
    same_run(whole, stopped)
    ours, theirs = (
        load_file(folder / "checkpoints/step_000003/state/optimizer-00000-of-00001.safetensors")
        for folder in (whole, stopped)
    )
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert any(name.endswith("/qmap1") for name in ours)
    assert all(row["optim/changed_fraction"] > 0 for row in rows(whole / "metrics.jsonl"))


def test_the_plan_counts_the_smaller_moments(capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    for states in ("float32", "8bit"):
        assert main(["train", "model=qwen0_5b", f"optim.states={states}", "dry_run=true"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    exact, coded = (plan["memory_by_phase"]["rollout"]["optimizer"] for plan in plans)
    assert exact == 8 * plans[0]["model"]["trained_parameters"]
    assert 0.25 < coded / exact < 0.26
    assert plans[1]["precision"]["moments"] == "8bit"
    assert plans[1]["disk"]["checkpoint"] < 0.55 * plans[0]["disk"]["checkpoint"]
