"""Memory of vLLM's servers: on devices of their own, or on the trainer's in turns with it."""

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
from dgpo_cli.planning.servers import ASLEEP

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


def test_a_gpu_in_turns_holds_the_trainer_and_a_share_or_a_sleeping_server(qwen7b: Any) -> None:
    """Four processes keep a fourth of weights and moments (4 + 8 bytes) and of a reference in bfloat16 (2), and gather
    two layers, the embedding and the head in bfloat16."""
    model = sizes(qwen7b)
    made = planned(qwen7b, colocated=True, gpu_memory_fraction=0.4)
    gathered = 2 * (2 * model.layer_parameters + 2 * model.embedding_parameters)
    kept = 14 * model.parameters // 4 + gathered
    apart = planned(qwen7b, gpu_memory_fraction=0.4).phases
    assert made.phases["rollout"].engine == 32_000_000_000
    assert made.phases["rollout"].total == pytest.approx(kept + 32_000_000_000, abs=4)
    for name, phase in apart.items():
        assert made.phases[name] == replace(phase, engine=ASLEEP)
    facts = made.servers["colocated"]
    assert facts["kept_by_trainer"] == pytest.approx(kept, abs=4)
    assert facts["largest_fraction"] == {"this GPU": int(100 * (0.92 - kept / 80e9)) / 100}
    assert made.fits == {"this GPU": True}


def test_a_share_that_does_not_fit_is_refused_with_one_that_does(qwen7b: Any) -> None:
    made = planned(qwen7b, colocated=True)
    most = made.servers["colocated"]["largest_fraction"]["this GPU"]
    assert made.fits == {"this GPU": False}
    assert "in its rollout phase" in made.warnings[0]
    assert made.warnings[0].endswith(f"engine.gpu_memory_fraction={most:g}, or less")
    assert planned(qwen7b, colocated=True, gpu_memory_fraction=most).fits == {"this GPU": True}
    assert planned(qwen7b, colocated=True, gpu_memory_fraction=most + 0.01).fits == {"this GPU": False}


def test_gpus_of_unknown_size_are_each_held_against_their_own_share(qwen7b: Any) -> None:
    """0.65 of 85 GB leaves too little for what four processes keep; of 150 GB, enough."""
    made = planned(qwen7b, Machine(), colocated=True, gpu_memory_fraction=0.65)
    kept = made.servers["colocated"]["kept_by_trainer"]
    assert kept + 0.65 * 85e9 > 0.92 * 85e9
    assert kept + 0.65 * 150e9 < 0.92 * 150e9
    assert made.fits == {"80 GB": False, "141 GB": True}


@pytest.mark.parametrize(
    ("engine", "warning"),
    [
        ({"tensor_parallel": 2}, "2 of 4 GPUs draw while the others wait: engine.replicas=2 takes all"),
        ({"replicas": 2, "tensor_parallel": 2}, ""),
        ({"replicas": 3, "tensor_parallel": 2}, "the servers need 6 GPUs, and 4 train"),
    ],
)
def test_gpus_in_turns_that_no_server_has_are_said(qwen7b: Any, engine: dict[str, Any], warning: str) -> None:
    found = [text for text in planned(qwen7b, colocated=True, **engine).warnings if "engine.colocated" in text]
    assert [text.removeprefix("engine.colocated: ") for text in found] == ([warning] if warning else [])


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
