"""What computes in what: one rule for every command, and what each says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.cli import main
from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import ComputeDtype, Dtype, StrategyConfig
from dgpo_cli.models.placement import Placement
from dgpo_cli.planning.architecture import from_config
from dgpo_cli.planning.batches import Data
from dgpo_cli.planning.layout import Machine
from dgpo_cli.planning.plan import plan_evaluation, plan_rollout, plan_training
from dgpo_cli.processes import SOLO, Processes

PLANS: dict[str, Any] = {"train": plan_training, "eval": plan_evaluation, "rollout": plan_rollout}
SMALL_STEP = [
    *("steps=1", "data.size=16", "rollout.prompts_per_step=2", "rollout.group_size=2", "benchmark.limit=2"),
    *("logger=none", "rollout.max_completion_tokens=8", "eval.k=1", "algo.kl_coef=0.1"),
]


@pytest.mark.parametrize(
    ("asked", "weights", "device", "expected"),
    [
        ("auto", "float32", "cpu", "float32"),
        ("auto", "float32", "cuda", "bfloat16"),
        ("float32", "float32", "cpu", "float32"),
        ("float32", "float32", "cuda", "float32"),
        ("bfloat16", "float32", "cpu", "bfloat16"),
        ("bfloat16", "float32", "cuda", "bfloat16"),
        ("auto", "bfloat16", "cpu", "bfloat16"),
        ("auto", "bfloat16", "cuda", "bfloat16"),
        ("bfloat16", "bfloat16", "cpu", "bfloat16"),
    ],
)
def test_what_a_command_computes_in_is_what_its_plan_says(asked: str, weights: str, device: str, expected: str) -> None:
    placed = Placement(StrategyConfig(compute_dtype=ComputeDtype[asked]), device, SOLO, Dtype[weights])
    assert placed.computes_in.name == expected
    for command, plan in PLANS.items():
        settings = [f"strategy.compute_dtype={asked}", f"strategy.device={device}", f"model.dtype={weights}"]
        lora = ["model.lora.rank=4"] if command == "train" else []  # which lets weights be bfloat16
        config = compose(command, ["model=qwen0_5b", *settings, *lora])
        architecture = from_config(config.model.architecture)
        made = plan(config, architecture, Machine(), Data())
        assert made.precision["compute"] == expected, command


@pytest.mark.parametrize(
    ("strategy", "rank", "reads", "on"),
    [
        ("single", 0, True, "cuda:1"),
        ("ddp", 0, True, "cuda:1"),
        ("ddp", 1, True, "cuda:1"),
        ("fsdp", 0, True, "cpu"),
        ("fsdp", 1, False, "cpu"),
        ("fsdp_offload", 1, False, "cpu"),
    ],
)
def test_of_sharded_models_the_main_process_alone_reads_weights(strategy: str, rank: int, reads: bool, on: str) -> None:
    settings = StrategyConfig(name=strategy, compute_dtype=ComputeDtype.float32)
    placed = Placement(settings, "cuda:1", Processes(rank=rank, size=2))
    assert (placed.loads_here, placed.loads_on) == (reads, on)
    cast = replace(placed, strategy=replace(settings, compute_dtype=ComputeDtype.bfloat16))
    assert cast.loads_on == "cpu"  # where it is cast


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_command_computes_in_the_same_and_says_so(
    dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = f"strategy.compute_dtype={dtype}"
    run, evaluation, rollouts = tmp_path / "run", tmp_path / "eval", tmp_path / "rollout"
    assert main(["train", *SMALL_STEP, chosen, f"hydra.run.dir={run}"]) == 0
    assert json.loads((run / "run.json").read_text())["compute_dtype"] == dtype
    manifest = json.loads((run / "evals" / "step_000000" / "results.json").read_text())["manifest"]
    assert manifest["compute_dtype"] == dtype
    [row] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if dtype == "float32":
        assert row["engine/logprob_gap_max"] < 1e-4
    else:
        assert 1e-4 < row["engine/logprob_gap_max"] < 1
    assert 0 < row["engine/logprob_gap_mean"] <= row["engine/logprob_gap_max"]
    assert main(["eval", "benchmark=digit_chain", "benchmark.limit=2", chosen, f"hydra.run.dir={evaluation}"]) == 0
    assert json.loads((evaluation / "manifest.json").read_text())["compute_dtype"] == dtype
    assert main(["rollout", "prompt=9 -5=?", "reference=tiny", chosen, f"hydra.run.dir={rollouts}"]) == 0
    assert f"compute_dtype: {dtype}" in (rollouts / "config.yaml").read_text()
    record = json.loads((rollouts / "rollouts.jsonl").read_text().splitlines()[0])
    gaps = [abs(ours - theirs) for ours, theirs in zip(record["logprobs"], record["engine_logprobs"], strict=True)]
    assert (max(gaps) < 1e-4) is (dtype == "float32")
    capsys.readouterr()
    other = "bfloat16" if dtype == "float32" else "float32"
    again = ["eval", "benchmark=digit_chain", "benchmark.limit=2", f"hydra.run.dir={evaluation}"]
    assert main([*again, f"strategy.compute_dtype={other}"]) == 2
    assert f"compute_dtype is {dtype} there and {other} here" in capsys.readouterr().err
    assert main([*again, chosen]) == 0


def test_an_evaluation_from_before_manifests_named_it_goes_on_in_float32_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "benchmark=digit_chain", "benchmark.limit=2", f"hydra.run.dir={tmp_path}"]
    assert main(command) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest.pop("compute_dtype") == "float32"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert main([*command, "strategy.compute_dtype=bfloat16"]) == 2
    assert main(command) == 0
    capsys.readouterr()
