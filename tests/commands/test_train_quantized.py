"""`dgpo train model.quantization=`: the real command, killed and resumed, and read again by the other commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands.test_train import quick, rows, start, train, wait_for_rows, without_clocks

from dgpo_cli.cli import main

LORA = ["model.lora.rank=4", "optim.lr=5e-3", "optim.warmup_steps=0", "benchmark.limit=8"]


def adapter(folder: Path) -> Path:
    name = (folder / "checkpoints/latest").read_text()
    return folder / "checkpoints" / name / "model"


@pytest.mark.parametrize("kind", ["nf4", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_and_the_other_commands_read_the_policy_that_it_trained(kind: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = [*LORA, f"model.quantization={kind}", "steps=3", "checkpoint.every=1", "rollout.save=all"]
    assert train(whole, *settings) == 0
    process = start(killed, f"hydra.run.dir={killed}", *quick(*settings))
    wait_for_rows(killed, process, 2)
    process.kill()
    process.communicate()
    assert main(["train", f"resume={killed}"]) == 0
    ours, theirs = ([without_clocks(row) for row in rows(folder / "metrics.jsonl")] for folder in (whole, killed))
    assert ours == theirs
    weights = [(adapter(folder) / "adapter_model.safetensors").read_bytes() for folder in (whole, killed)]
    assert weights[0] == weights[1]

    first = rows(whole / "rollouts/step_000001.jsonl")
    assert all(record["logprobs"] == record["ref_logprobs"] for record in first)  # the same codes, and B is 0
    assert ours[2]["hellinger/mean"] > 0.0
    assert json.loads((whole / "run.json").read_text())["model"]["quantization"] == kind

    before = [row["completion"] for row in rows(whole / "evals/step_000003/samples.jsonl")]
    for path in (whole, adapter(whole)):
        folder = tmp_path / f"eval_{path.name}"
        options = ["benchmark=digit_chain", "benchmark.limit=8", f"model.path={path}"]
        assert main(["eval", f"hydra.run.dir={folder}", *options]) == 0
        assert [row["completion"] for row in rows(folder / "samples.jsonl")] == before
        assert json.loads((folder / "manifest.json").read_text())["model"]["quantization"] == kind

    options = ["reference=tiny", "limit=1", "rollout.group_size=2", f"model.path={whole}"]
    assert main(["rollout", f"hydra.run.dir={tmp_path / 'drawn'}", *options]) == 0
    for record in rows(tmp_path / "drawn/rollouts.jsonl"):
        assert max(record["hellinger"]) < 0.2  # from the same codes, and not from the weights before they were rounded
