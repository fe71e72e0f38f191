"""Whether a plan fits the device that is there, and if not, what would make its largest part smaller."""

from __future__ import annotations

from dataclasses import replace

from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.planning.layout import Layout, Machine
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.planning.remarks import size

GPU_SIZES = {"80 GB": 85_000_000_000, "141 GB": 150_000_000_000}  # what CUDA gives of an H100 and of an H200
USABLE = 0.92  # of a device's memory: the rest is the driver's context and what the allocator cannot reuse


def judged(made: Plan, machine: Machine, warnings: tuple[str, ...]) -> Plan:
    """The plan with its warnings, and with the devices that it was held against."""
    sizes = _device_sizes(made.layout, machine)
    fits = {name: made.peak_bytes <= USABLE * capacity for name, capacity in sizes.items()}
    misfits = [] if any(fits.values()) or not fits else [_misfit(made, sizes)]
    return replace(made, fits=fits, warnings=(*misfits, *warnings))


def _device_sizes(layout: Layout, machine: Machine) -> dict[str, int]:
    """What a process has: its share of this computer, its GPU, or the GPUs that are common."""
    if layout.device == "cpu":
        return {} if machine.cpu_bytes is None else {"this CPU": machine.cpu_bytes // layout.processes}
    if machine.gpu_bytes is not None:
        return {"this GPU": machine.gpu_bytes}
    return dict(GPU_SIZES)


def _misfit(made: Plan, sizes: dict[str, int]) -> str:
    name, capacity = max(sizes.items(), key=lambda item: item[1])
    return (
        f"does not fit: a process takes {size(made.peak_bytes)} in its {made.peak_phase} phase, {name} has "
        f"{size(int(USABLE * capacity))} to give ({USABLE:.0%} of it); {_remedy(made)}"
    )


def _remedy(made: Plan) -> str:
    """What makes the largest part of the largest phase smaller."""
    phase = made.phases[made.peak_phase]
    movable = {"cache": phase.cache, "activations": phase.activations, "weights": 0}
    movable["weights"] = phase.total - phase.cache - phase.activations - phase.scoring
    largest = max(movable, key=lambda part: movable[part])
    if largest == "cache":
        return "a smaller engine.batch_size"
    if largest == "activations":
        return "strategy.activation_checkpointing=true, a smaller optim.tokens_per_microbatch"
    if made.layout.strategy in SHARDED:
        return "more processes (strategy.num_processes), strategy=fsdp_offload, or model.lora.rank=16"
    return "strategy=fsdp over several GPUs, or model.lora.rank=16"
