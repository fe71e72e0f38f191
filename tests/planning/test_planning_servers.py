"""Memory of vLLM's servers: beside the trainer's, on devices of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dgpo_cli.config.compose import compose
from dgpo_cli.planning.architecture import Architecture, from_config
from dgpo_cli.planning.batches import ASSUMED_PROMPT_TOKENS, Data
from dgpo_cli.planning.layout import Machine
from dgpo_cli.planning.plan import plan_evaluation, plan_training
from dgpo_cli.planning.plan_record import Plan

GPUS = Machine(gpus=8, gpu_bytes=80_000_000_000)


@pytest.fixture(scope="module")
def qwen7b() -> Any:
    return compose("train", ["model=qwen7b", "engine=vllm", "engine.tensor_parallel=2", "strategy.num_processes=4"])


def sizes(config: Any) -> Architecture:
    found = from_config(config.model.architecture)
    assert found is not None
    return found


def planned(config: Any, machine: Machine = GPUS, **engine: Any) -> Plan:
    config = replace(config, engine=replace(config.engine, **engine))
    return plan_training(config, sizes(config), machine, Data())


def test_weights_and_cache_of_a_device_follow_from_the_model_and_the_fraction(qwen7b: Any) -> None:
    model, servers = sizes(qwen7b), planned(qwen7b).servers
    weights = model.parameters * 2 // 2  # bfloat16, over two devices
    token = 2 * model.layers * model.kv_width * 2 // 2  # a key and a value, in bfloat16, over two devices
    width = ASSUMED_PROMPT_TOKENS + qwen7b.rollout.max_completion_tokens
    assert (servers["servers"], servers["devices_each"]) == (1, 2)
    assert servers["weights"] == pytest.approx(weights, abs=1)
    assert servers["cache_of_a_token"] == token
    assert servers["cache"] == 72_000_000_000 - servers["weights"]  # 0.9 of the GPU
    assert servers["sequences_at_once"] == servers["cache"] // (token * width)


def test_the_trainer_keeps_no_memory_for_completions_that_servers_draw(qwen7b: Any) -> None:
    own = planned(qwen7b, name="transformers")
    assert set(own.phases) - set(planned(qwen7b).phases) == {"rollout", "evaluation"}
    assert own.servers == {}


def test_servers_that_run_already_are_not_planned(qwen7b: Any) -> None:
    made = planned(qwen7b, urls=["http://10.0.0.1:8000"])
    assert made.servers == {}
    assert "rollout" not in made.phases


@pytest.mark.parametrize(
    ("engine", "machine", "warning"),
    [
        ({"replicas": 3}, GPUS, "needs 6 GPUs beside the 4 that train, and 8 are here"),
        ({"replicas": 2}, GPUS, ""),
        ({"replicas": 3, "devices": list("456789")}, GPUS, ""),
        ({"tensor_parallel": 1}, Machine(gpus=8, gpu_bytes=16_000_000_000), "servers of engine=vllm do not fit"),
    ],
)
def test_servers_without_room_are_said(qwen7b: Any, engine: dict[str, Any], machine: Machine, warning: str) -> None:
    found = [text for text in planned(qwen7b, machine, **engine).warnings if "engine=vllm" in text]
    assert bool(found) == bool(warning)
    if warning:
        assert warning in found[0]


def test_on_a_cpu_the_servers_memory_comes_on_top() -> None:
    config = compose("train", ["engine=vllm"])
    made = plan_training(config, sizes_of_tiny(), Machine(cpu_bytes=8 * 2**30), Data())
    assert made.servers["weights"] == sizes_of_tiny().parameters * 4
    assert any("run on this CPU too: each takes about 3.1 GB" in text for text in made.warnings)


def test_an_evaluation_by_servers_is_theirs_alone() -> None:
    config = compose("eval", ["model=qwen7b", "engine=vllm", "benchmark=aime2025", "strategy.device=cuda"])
    made = plan_evaluation(config, sizes(config), GPUS, Data())
    assert set(made.phases) == {"server"}
    assert (
        made.peak_bytes == made.servers["weights"] + made.servers["cache_of_a_token"] * made.servers["sequence_tokens"]
    )


def sizes_of_tiny() -> Architecture:
    from dgpo_cli.commands.plan import architecture_of

    return architecture_of("model", "bundled:tiny")
