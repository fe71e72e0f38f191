"""Memory of the servers of engine=vllm: on devices of their own, where it is no phase of the trainer's, or on its GPUs.

A server holds the weights in the dtype that it computes in, a share of them on each of its devices, and fills what is
left of its share of a GPU (engine.gpu_memory_fraction) with a cache of keys and values. It takes as many sequences side
by side as that holds; activations and buffers, which come out of the same share, are not counted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from dgpo_cli.config.engine_groups import EngineDtype
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.fitting import GPU_SIZES, largest_fraction
from dgpo_cli.planning.layout import Layout, Machine
from dgpo_cli.planning.memory import Memory, Setting

CACHE_ON_A_CPU = 2**30  # VLLM_CPU_KVCACHE_SPACE=1, which dgpo sets unless it is set
OF_VLLM_ITSELF = 2_000_000_000  # resident, beside weights and cache: 2.3 GB with the bundled model on a CPU
# On a GPU, of a server whose weights and cache sleep: CUDA's context, kernels, graphs, buffers of NCCL. An allowance,
# not measured here; logs of servers that others have published say 1.3 to 4.3 GiB.
ASLEEP = 4 * 2**30
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Servers:
    """Those that dgpo starts; bytes are of one device of one server. cache: None if the size of a GPU is not known."""

    servers: int
    devices_each: int
    weights: int
    cache_of_a_token: int
    sequence_tokens: int
    cache: int | None

    @property
    def sequences_at_once(self) -> int | None:
        """Of full length, on one server."""
        return None if self.cache is None else self.cache // (self.cache_of_a_token * self.sequence_tokens)

    def as_record(self) -> dict[str, Any]:
        return {**asdict(self), "sequences_at_once": self.sequences_at_once}

    def as_phase(self) -> Memory:
        """What one device has to hold at the least: the weights, and one sequence."""
        return Memory(weights=self.weights, cache=self.cache_of_a_token * self.sequence_tokens)


def planned_servers(
    config: Any, model: Architecture, setting: Setting, layout: Layout, machine: Machine, longest: int
) -> Servers | None:
    """`longest`: tokens of a prompt with its completion. None: another engine, or servers that run already."""
    engine = config.engine
    if engine.name != "vllm" or engine.urls:
        return None
    element = setting.compute_bytes if engine.dtype is EngineDtype.auto else ELEMENT_BYTES[engine.dtype.name]
    each = engine.tensor_parallel
    weights = -(-model.parameters * element // each)
    if layout.device == "cpu":
        cache: int | None = CACHE_ON_A_CPU
    elif machine.gpu_bytes is not None:
        cache = max(0, int(engine.gpu_memory_fraction * machine.gpu_bytes) - weights)
    else:
        cache = None
    return Servers(
        servers=engine.replicas,
        devices_each=each,
        weights=weights,
        cache_of_a_token=-(-model.cache_bytes(element) // each),
        sequence_tokens=engine.max_model_len or longest,
        cache=cache,
    )


def are_colocated(config: Any, layout: Layout) -> bool:
    engine = config.engine
    return bool(engine.name == "vllm" and engine.colocated and not engine.urls and layout.device == "cuda")


def with_colocated(phases: dict[str, Memory], drawing: Memory, fraction: float, machine: Machine) -> dict[str, Memory]:
    """Phases of a process whose GPU a server has too: asleep in each of them, its share beside `drawing`, in rollout.

    drawing: what the trainer keeps then. If the GPU's size is not known, the share is that of the smallest common one.
    """
    capacity = machine.gpu_bytes or min(GPU_SIZES.values())
    asleep = {name: replace(phase, engine=ASLEEP) for name, phase in phases.items()}
    return {"rollout": replace(drawing, engine=int(fraction * capacity)), **asleep}


def colocated_facts(phases: dict[str, Memory], fraction: float, machine: Machine) -> dict[str, Any]:
    """What both sides hold of a GPU while one of them works, and how large a share may be."""
    kept = phases["rollout"].total - phases["rollout"].engine
    sizes = GPU_SIZES if machine.gpu_bytes is None else {"this GPU": machine.gpu_bytes}
    return {
        "fraction": fraction,
        "kept_by_trainer": kept,
        "asleep": ASLEEP,
        "share": {name: int(fraction * capacity) for name, capacity in sizes.items()},
        "largest_fraction": {name: largest_fraction(kept, capacity) for name, capacity in sizes.items()},
    }


def server_warnings(
    config: Any, servers: Servers | None, layout: Layout, machine: Machine, *, trains: bool
) -> list[str]:
    """`trains`: the trainer's processes have devices of their own, which the servers leave alone."""
    if servers is None:
        return []
    if layout.device == "cpu" and trains and config.engine.colocated:
        return ["engine.colocated does not start here: vLLM's servers can sleep on GPUs alone (strategy.device=cuda)"]
    if layout.device == "cpu":
        taken = servers.weights + CACHE_ON_A_CPU + OF_VLLM_ITSELF
        return [
            f"the servers of engine=vllm run on this CPU too: each takes about {taken / 1e9:.1f} GB beside the memory "
            "that is planned here"
        ]
    found: list[str] = []
    if servers.sequences_at_once == 0:
        found.append(
            "the servers of engine=vllm do not fit: weights and one full sequence take more than "
            f"engine.gpu_memory_fraction={config.engine.gpu_memory_fraction:g} of a GPU: raise engine.tensor_parallel"
        )
    if trains and config.engine.colocated:
        return [*found, *_turn_warnings(servers, layout, machine)]
    trainers = layout.processes if trains else 0
    wanted = trainers + servers.servers * servers.devices_each
    if machine.gpus and config.engine.devices is None and wanted > machine.gpus:
        found.append(
            f"engine=vllm needs {servers.servers * servers.devices_each} GPUs beside the {trainers} that train, and "
            f"{machine.gpus} are here: fewer strategy.num_processes, or engine.urls= names servers elsewhere"
        )
    return found


def _turn_warnings(servers: Servers, layout: Layout, machine: Machine) -> list[str]:
    """Of servers on the trainer's own GPUs."""
    found = []
    wanted, each = servers.servers * servers.devices_each, servers.devices_each
    if wanted > layout.processes:
        found.append(f"engine.colocated: the servers need {wanted} GPUs, and {layout.processes} train")
    elif wanted + each <= layout.processes:
        found.append(
            f"engine.colocated: {wanted} of {layout.processes} GPUs draw while the others wait: "
            f"engine.replicas={layout.processes // each} takes all"
        )
    if machine.gpu_bytes is None:
        smallest = min(GPU_SIZES, key=lambda name: GPU_SIZES[name])
        found.append(f"engine.colocated: the table shows a server's share of a GPU of {smallest}")
    return found
