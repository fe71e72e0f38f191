"""Whether a plan fits the device that is there, and if not, what would make its largest part smaller."""

from __future__ import annotations

import math
from dataclasses import replace

from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.planning.layout import Layout, Machine
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.planning.remarks import size

GPU_SIZES = {"80 GB": 85_000_000_000, "141 GB": 150_000_000_000}  # what CUDA gives of an H100 and of an H200
USABLE = 0.92  # of a device's memory: the rest is the driver's context and what the allocator cannot reuse


def judged(made: Plan, machine: Machine, warnings: tuple[str, ...], *, wider_team: int | None = None) -> Plan:
    """The plan with its warnings, and with the devices that it was held against.

    wider_team: more processes that could share a sequence; None if no more can.
    """
    sizes = _device_sizes(made.layout, machine)
    fits = {name: _peak(made, capacity)[1] <= USABLE * capacity for name, capacity in sizes.items()}
    misfits = [] if any(fits.values()) or not fits else [_misfit(made, sizes, wider_team)]
    return replace(made, fits=fits, warnings=(*misfits, *warnings))


def largest_fraction(kept: int, gpu_bytes: int) -> float:
    """The share of a GPU that is left beside `kept` bytes of the trainer's, in hundredths; 0 if there is none."""
    return max(0, math.floor(100 * (USABLE * gpu_bytes - kept) / gpu_bytes)) / 100


def _peak(made: Plan, capacity: int) -> tuple[str, int]:
    """The largest phase on a device of this size, and its bytes."""
    totals = {name: phase.total for name, phase in made.on_a_gpu_of(capacity).items()}
    return max(totals.items(), key=lambda item: item[1])


def _device_sizes(layout: Layout, machine: Machine) -> dict[str, int]:
    """What a process has: its share of this computer, its GPU, or the GPUs that are common."""
    if layout.device == "cpu":
        return {} if machine.cpu_bytes is None else {"this CPU": machine.cpu_bytes // layout.processes}
    if machine.gpu_bytes is not None:
        return {"this GPU": machine.gpu_bytes}
    return dict(GPU_SIZES)


def _misfit(made: Plan, sizes: dict[str, int], wider_team: int | None) -> str:
    name, capacity = max(sizes.items(), key=lambda item: item[1])
    peak, taken = _peak(made, capacity)
    return (
        f"does not fit: a process takes {size(taken)} in its {peak} phase, {name} has "
        f"{size(int(USABLE * capacity))} to give ({USABLE:.0%} of it); {_remedy(made, peak, capacity, wider_team)}"
    )


def _remedy(made: Plan, peak: str, capacity: int, wider_team: int | None) -> str:
    """What makes the largest part of the largest phase smaller."""
    phase = made.phases[peak]
    if phase.engine and peak == "rollout":
        most = largest_fraction(phase.total - phase.engine, capacity)
        if most:
            return f"engine.gpu_memory_fraction={most:g}, or less"
    movable = {"cache": phase.cache, "activations": phase.activations, "weights": 0}
    movable["weights"] = phase.total - phase.cache - phase.activations - phase.scoring - phase.engine
    largest = max(movable, key=lambda part: movable[part])
    if largest == "cache":
        return "a smaller engine.batch_size"
    if largest == "activations":
        fewer = "a smaller optim.tokens_per_microbatch"
        if made.batch["batch"].get("rollouts_per_micro_batch") == 1:  # no budget cuts a sequence
            fewer = "a smaller rollout.max_completion_tokens"
            if wider_team is not None:
                fewer = f"strategy.sequence_parallel={wider_team}"
        return f"strategy.activation_checkpointing=true, or {fewer}"
    if made.layout.strategy in SHARDED:
        return "more processes (strategy.num_processes), strategy=fsdp_offload, or model.lora.rank=16"
    return "strategy=fsdp over several GPUs, or model.lora.rank=16"
