"""`dgpo train` with adapters: the real command, what it leaves, and what takes it up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from commands.test_train import quick, rows, start, train, wait_for_rows, without_clocks
from safetensors.torch import load_file

from dgpo_cli.cli import main

LORA = ["model.lora.rank=4", "optim.lr=5e-3", "optim.warmup_steps=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps."""
    folder = tmp_path_factory.mktemp("runs") / "lora"
    assert train(folder, *LORA, "steps=3", "rollout.save=all") == 0
    return folder


def latest(folder: Path) -> Path:
    return folder / "checkpoints" / (folder / "checkpoints" / "latest").read_text()


def test_at_the_first_step_no_credit_is_redistributed_and_later_some_is(trained: Path) -> None:
    metrics = rows(trained / "metrics.jsonl")
    assert metrics[0]["hellinger/max"] == 0.0
    assert metrics[0]["credit/ess"] == 1.0
    assert metrics[2]["hellinger/mean"] > 0.0
    assert metrics[2]["credit/ess"] < 1.0
    for record in rows(trained / "rollouts/step_000001.jsonl"):
        assert set(record["credit"] or [1.0]) == {1.0}
        assert record["logprobs"] == record["ref_logprobs"]


def test_a_checkpoint_is_an_adapter_and_its_state_that_of_its_weights_alone(trained: Path) -> None:
    checkpoint = latest(trained)
    assert {path.name for path in (checkpoint / "model").glob("*.safetensors")} == {"adapter_model.safetensors"}
    weights = load_file(checkpoint / "model" / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    state = load_file(checkpoint / "state" / "optimizer-00000-of-00001.safetensors")
    moments = [value for name, value in state.items() if name.endswith("/exp_avg")]
    assert len(moments) == len(weights)
    assert sum(value.numel() for value in moments) == sum(value.numel() for value in weights.values())
    run = json.loads((trained / "run.json").read_text())
    assert run["model"]["lora"]["parameters"] == sum(value.numel() for value in weights.values())


def test_eval_takes_the_run_as_it_is_and_draws_what_training_drew(trained: Path, tmp_path: Path) -> None:
    for path in (trained, latest(trained) / "model"):
        folder = tmp_path / path.name
        options = ["benchmark=digit_chain", "benchmark.limit=16"]
        assert main(["eval", f"hydra.run.dir={folder}", f"model.path={path}", *options]) == 0
        drawn, before = rows(folder / "samples.jsonl"), rows(trained / "evals/step_000003/samples.jsonl")
        assert [row["completion"] for row in drawn] == [row["completion"] for row in before]
    untrained = rows(trained / "evals/step_000000/samples.jsonl")
    assert [row["completion"] for row in untrained] != [row["completion"] for row in before]


def test_rollout_measures_the_run_from_its_base(trained: Path, tmp_path: Path) -> None:
    options = ["reference=tiny", "limit=2", "rollout.group_size=2"]
    assert main(["rollout", f"hydra.run.dir={tmp_path}", f"model.path={trained}", *options]) == 0
    for record in rows(tmp_path / "rollouts.jsonl"):
        assert max(record["hellinger"]) > 0.0
        assert record["logprobs"] != record["ref_logprobs"]


@pytest.mark.parametrize(
    ("overrides", "stored"),
    [
        (
            ["algo=dgpo", "gating=calibrated", "model.lora.merge=true"],
            {"model/model.safetensors", "state/adapter/adapter_model.safetensors"},
        ),
        (
            ["gating=calibrated", "optim.minibatches=2", "optim.epochs=2", "reference.refresh_every=3"],
            {"model/adapter_model.safetensors", "state/reference/adapter_model.safetensors"},
        ),
    ],
    ids=["merged", "renewed reference"],
)
def test_a_killed_run_resumes_to_the_same_numbers(tmp_path: Path, overrides: list[str], stored: set[str]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = ["steps=5", "benchmark=none", "checkpoint.every=3", *LORA, *overrides]
    assert train(whole, *settings) == 0
    process = start(killed, f"hydra.run.dir={killed}", *quick(*settings))
    wait_for_rows(killed, process, 4)
    process.kill()
    process.communicate()
    assert main(["train", f"resume={killed}"]) == 0
    ours, theirs = ([without_clocks(row) for row in rows(folder / "metrics.jsonl")] for folder in (whole, killed))
    assert ours == theirs
    assert ours[-1]["hellinger/mean"] > 0.0
    assert {path.relative_to(latest(whole)).as_posix() for path in latest(whole).rglob("*.safetensors")} == {
        *stored,
        "state/optimizer-00000-of-00001.safetensors",
    }
    for file in (*stored, "state/optimizer-00000-of-00001.safetensors"):
        assert (latest(whole) / file).read_bytes() == (latest(killed) / file).read_bytes()
    if "model.lora.merge=true" in overrides:
        holds_the_base_and_the_adapter(latest(killed))


def holds_the_base_and_the_adapter(checkpoint: Path) -> None:
    """A merged model: W + alpha / rank * B A where there is an adapter, and the base's weights elsewhere."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint / "model")
    base = json.loads((checkpoint / "state/adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    before = transformers.AutoModelForCausalLM.from_pretrained(base)
    layer = "model.layers.0.self_attn.q_proj"
    adapter = load_file(checkpoint / "state/adapter/adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
    expected = before.get_submodule(layer).weight + 2.0 * b @ a  # alpha / rank = 8 / 4
    assert torch.allclose(model.get_submodule(layer).weight, expected, atol=1e-6)
    assert not torch.equal(model.get_submodule(layer).weight, before.get_submodule(layer).weight)
    assert torch.equal(model.model.embed_tokens.weight, before.model.embed_tokens.weight)


def test_frozen_weights_may_be_bfloat16_and_eval_keeps_them_so(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(folder, *LORA, "model.dtype=bfloat16", "steps=1", "benchmark.limit=8") == 0
    options = ["benchmark=digit_chain", "benchmark.limit=8"]
    assert main(["eval", f"hydra.run.dir={tmp_path / 'eval'}", f"model.path={folder}", *options]) == 0
    drawn, before = rows(tmp_path / "eval/samples.jsonl"), rows(folder / "evals/step_000001/samples.jsonl")
    assert [row["completion"] for row in drawn] == [row["completion"] for row in before]
    assert json.loads((tmp_path / "eval/manifest.json").read_text())["model"]["dtype"] == "bfloat16"


def test_full_training_goes_on_from_an_adapter_merged(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "full"
    assert train(folder, f"model.path={trained}", "steps=1", "benchmark=none") == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(latest(folder) / "model")
    assert not any("lora" in name for name, _ in model.named_parameters())
    capsys.readouterr()
    assert train(tmp_path / "again", f"model.path={trained}", "model.lora.rank=4") == 2
    assert "would train one on top of it" in capsys.readouterr().err


def test_a_renewed_reference_and_checkpointed_activations_give_the_same_numbers_as_without(tmp_path: Path) -> None:
    """The adapters stay what they are for sampling, evaluation and saving too.

    Packed, since padded rows are computed in another way with checkpointing: each with its prompt, and not after it.
    """
    found = []
    for checkpointing in ("false", "true"):
        folder = tmp_path / checkpointing
        overrides = ["algo=grpo", "reference.refresh_every=1", "strategy.packing=true"]
        overrides += [f"strategy.activation_checkpointing={checkpointing}"]
        assert train(folder, *LORA, *overrides, "optim.minibatches=2", "steps=2", "rollout.save=all") == 0
        metrics = [without_clocks(row) for row in rows(folder / "metrics.jsonl")]
        files = ("rollouts/step_000002.jsonl", "evals/step_000002/samples.jsonl")
        adapter = (latest(folder) / "model/adapter_model.safetensors").read_bytes()
        found.append((metrics, [(folder / file).read_bytes() for file in files], adapter))
    assert found[0] == found[1]
    assert found[0][0][1]["kl"] > 0.0
