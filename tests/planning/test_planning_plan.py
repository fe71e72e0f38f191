"""A plan from a configuration: where it runs, its arithmetic, whether it fits, and what it warns of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dgpo_cli.config.compose import compose
from dgpo_cli.planning.architecture import Architecture, from_config
from dgpo_cli.planning.batches import ASSUMED_PROMPT_TOKENS, Data, prompt_tokens
from dgpo_cli.planning.layout import Machine, layout_of
from dgpo_cli.planning.memory import Setting, optimizer_step
from dgpo_cli.planning.plan import plan_training
from dgpo_cli.planning.plan_record import Plan

NOTHING = Machine()
EIGHT_GPUS = Machine(gpus=8, gpu_bytes=85_000_000_000)


@pytest.fixture(scope="module")
def qwen7b() -> Any:
    return compose("train", ["model=qwen7b", "strategy=single"])


def sizes(config: Any) -> Architecture:
    found = from_config(config.model.architecture)
    assert found is not None
    return found


def with_strategy(config: Any, **changes: Any) -> Any:
    return replace(config, strategy=replace(config.strategy, **changes))


def planned(config: Any, machine: Machine = NOTHING, data: Data = Data()) -> Plan:  # noqa: B008
    return plan_training(config, sizes(config), machine, data)


@pytest.mark.parametrize(
    ("changes", "machine", "processes", "device", "assumed"),
    [
        ({}, NOTHING, 1, "cpu", "planned for this CPU"),
        ({}, EIGHT_GPUS, 1, "cuda", None),
        ({"name": "fsdp"}, NOTHING, 8, "cuda", "planned for 8 GPU processes"),
        ({"name": "fsdp", "num_processes": 16}, NOTHING, 16, "cuda", "planned for 16 GPU processes"),
        ({"name": "ddp"}, EIGHT_GPUS, 8, "cuda", None),
        ({"name": "fsdp", "num_processes": 2}, EIGHT_GPUS, 2, "cuda", None),
    ],
)
def test_processes_are_those_named_else_the_gpus_else_eight_and_the_plan_says_so(
    qwen7b: Any, changes: dict[str, Any], machine: Machine, processes: int, device: str, assumed: str | None
) -> None:
    layout = layout_of(with_strategy(qwen7b, **changes), machine)
    assert (layout.processes, layout.device) == (processes, device)
    assert bool(layout.assumed) == bool(assumed)
    if assumed:
        assert assumed in layout.assumed[0]


def test_a_distributed_run_on_a_cpu_is_planned_there(qwen7b: Any) -> None:
    cpu = type(qwen7b.strategy.device)["cpu"]
    layout = layout_of(with_strategy(qwen7b, name="fsdp", num_processes=2, device=cpu), NOTHING)
    assert (layout.processes, layout.device, layout.assumed) == (2, "cpu", ())


def test_a_gpu_computes_in_bfloat16_over_float32_weights(qwen7b: Any) -> None:
    on_gpu, on_cpu = planned(qwen7b, EIGHT_GPUS), planned(qwen7b)
    assert (on_gpu.precision["weights"], on_gpu.precision["compute"]) == ("float32", "bfloat16")
    assert on_cpu.precision["compute"] == "float32"


def test_a_micro_batch_holds_as_many_full_rollouts_as_its_budget(qwen7b: Any) -> None:
    batch = planned(qwen7b).batch["batch"]
    # 1,024 + 4,096 tokens a rollout, 16,384 a micro-batch: three; 512 rollouts an update in one process.
    assert (batch["rollouts_per_micro_batch"], batch["micro_batches_per_update"]) == (3, 171)
    spread = planned(with_strategy(qwen7b, name="fsdp", num_processes=8)).batch["batch"]
    assert (spread["rollouts_per_process"], spread["micro_batches_per_update"]) == (64, 22)


def test_prompts_are_as_long_as_the_data_says_and_the_context_leaves() -> None:
    model = Architecture(64, 2, 4, 2, 16, 96, 256, True, 512)
    assert prompt_tokens(100, model, Data(longest_prompt=30)) == 30
    assert prompt_tokens(500, model, Data(longest_prompt=30)) == 12
    assert prompt_tokens(100, replace(model, max_positions=None), Data()) == ASSUMED_PROMPT_TOKENS


def test_scoring_is_a_pass_of_its_own_where_updates_follow_one_another(qwen7b: Any) -> None:
    assert "score" not in planned(qwen7b).phases
    twice = replace(qwen7b, optim=replace(qwen7b.optim, minibatches=2))
    assert "score" in planned(twice).phases


def test_no_reference_is_held_where_none_is_asked(qwen7b: Any) -> None:
    assert planned(qwen7b).memory["reference"] > 0
    uniform = replace(qwen7b, gating=replace(qwen7b.gating, signal=type(qwen7b.gating.signal).none))
    assert planned(uniform).memory["reference"] == 0


def test_a_plan_that_does_not_fit_says_what_would_help(qwen7b: Any) -> None:
    assert planned(qwen7b, EIGHT_GPUS).warnings[0].startswith("does not fit: a process takes")
    assert planned(qwen7b, EIGHT_GPUS).fits == {"this GPU": False}
    spread = with_strategy(qwen7b, name="fsdp", activation_checkpointing=True)
    assert planned(spread, EIGHT_GPUS).fits == {"this GPU": True}
    assert not any("does not fit" in warning for warning in planned(spread, EIGHT_GPUS).warnings)


def test_the_remedy_is_that_of_the_largest_part(qwen7b: Any) -> None:
    spread = with_strategy(qwen7b, name="fsdp", activation_checkpointing=True)
    much = replace(
        spread, engine=replace(spread.engine, batch_size=1000), rollout=replace(spread.rollout, group_size=999)
    )
    assert planned(much, EIGHT_GPUS).warnings[0].endswith("a smaller engine.batch_size")
    assert "strategy=fsdp over several GPUs" in planned(with_strategy(qwen7b, name="ddp"), EIGHT_GPUS).warnings[0]


def test_processes_that_share_a_sequence_hold_a_part_of_it_each(qwen7b: Any) -> None:
    """7B, 28 heads and 4 of keys, at 1,024 + 15,360 tokens: 4 processes hold 4,096 each, 8 cannot share it out."""
    rollout = replace(qwen7b.rollout, max_completion_tokens=15_360)
    long = replace(qwen7b, rollout=rollout, optim=replace(qwen7b.optim, tokens_per_microbatch=4_096))
    spread = with_strategy(long, name="fsdp", activation_checkpointing=False)
    found = {size: planned(with_strategy(spread, sequence_parallel=size), EIGHT_GPUS) for size in (1, 4, 8)}
    assert found[4].phases["forward"].activations * 4 == found[1].phases["forward"].activations
    rollouts = long.rollout.prompts_per_step * long.rollout.group_size
    assert found[1].batch["batch"]["micro_batches_per_update"] == rollouts / 8
    assert found[4].batch["batch"]["micro_batches_per_update"] == rollouts / 2
    assert "strategy.sequence_parallel=2" in found[1].warnings[0]  # it does not fit
    assert not any("more than optim.tokens_per_microbatch" in text for text in found[4].warnings)
    assert any("cannot be shared out to 8 processes" in text for text in found[8].warnings)


def test_a_plan_names_teams_that_the_processes_and_heads_allow(qwen7b: Any) -> None:
    """28 heads, 4 of keys: of eight processes 2 or 4 can share a sequence, and 16 are not there."""
    rollout = replace(qwen7b.rollout, max_completion_tokens=200_000)
    long = replace(qwen7b, rollout=rollout, engine=replace(qwen7b.engine, batch_size=1))
    spread = with_strategy(long, name="fsdp", activation_checkpointing=False)
    found = {size: planned(with_strategy(spread, sequence_parallel=size), EIGHT_GPUS) for size in (1, 2, 4, 16)}
    assert "strategy.sequence_parallel=2" in found[1].warnings[0]
    assert "strategy.sequence_parallel=4" in found[2].warnings[0]
    assert found[4].warnings[0].endswith("or a smaller rollout.max_completion_tokens")  # 8 would be refused
    assert any("8 processes do not make up teams of 16" in text for text in found[16].warnings)


def test_a_generation_unit_is_drawn_whole_by_one_process(qwen7b: Any) -> None:
    """512 rollouts over 64 processes are eight each; units of 32 are not cut for that."""
    spread = with_strategy(qwen7b, name="fsdp", num_processes=64)
    few = replace(spread, engine=replace(spread.engine, batch_size=8))
    assert planned(spread).phases["rollout"].cache == 4 * planned(few).phases["rollout"].cache


def test_the_benchmark_in_training_is_planned_for(qwen7b: Any) -> None:
    """30 problems x 32 samples, drawn 32 at a time: 1,024 + 20,480 tokens beside 1,024 + 4,096 of a rollout."""
    phases = planned(qwen7b).phases
    evaluation, rollout = phases["evaluation"], phases["rollout"]
    assert (evaluation.weights, evaluation.optimizer) == (rollout.weights, rollout.optimizer)
    grown = 32 * (20_480 - 4_096) * (sizes(qwen7b).cache_bytes(4) * 29 // 28 + 16)
    assert evaluation.cache - rollout.cache == pytest.approx(grown, rel=1e-6)
    short = replace(qwen7b, eval=replace(qwen7b.eval, k=1, limit=4))
    assert planned(short).phases["evaluation"].cache == pytest.approx(evaluation.cache / 8, rel=1e-6)
    none = replace(qwen7b, benchmark=replace(qwen7b.benchmark, name=None))
    assert "evaluation" not in planned(none).phases


def test_a_disk_too_small_for_the_checkpoints_is_told(qwen7b: Any) -> None:
    plan = planned(qwen7b, Machine(disk_free_bytes=10**9))
    assert plan.disk["checkpoint"] == 12 * 7_615_616_512
    assert any("checkpoints take up to" in warning for warning in plan.warnings)


def test_uneven_shares_are_told(qwen7b: Any) -> None:
    plan = planned(with_strategy(qwen7b, name="fsdp", num_processes=6))
    assert any("512 rollouts an update do not split evenly over 6 processes" in text for text in plan.warnings)


def test_epochs_through_the_data_are_told_where_its_rows_are_known(qwen7b: Any) -> None:
    # 200 steps of 32 prompts.
    assert planned(qwen7b, data=Data(rows=3200)).batch["batch"]["data_epochs"] == 2.0
    assert planned(qwen7b).batch["batch"]["data_epochs"] is None


def test_processes_with_a_model_each_sum_their_gradients_in_large_pieces() -> None:
    model = Architecture(64, 2, 4, 2, 16, 96, 1_000_000, True, 512)
    alone, together = (optimizer_step(model, Setting(device="cuda", copies=count)) for count in (1, 8))
    assert together.optimizer == 8 * model.parameters + 4 * (64 * 1_000_000 + 2**24) > alone.optimizer
