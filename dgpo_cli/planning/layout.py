"""Where a command's processes run, and how one of them holds and computes its share of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.gating_needs import needs_reference
from dgpo_cli.config.groups import Dtype
from dgpo_cli.config.precision import compute_dtype
from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.planning.architecture import Adapters
from dgpo_cli.planning.memory import NO_ADAPTERS, Setting

ASSUMED_PROCESSES = 8


@dataclass(frozen=True)
class Machine:
    """What is here: GPUs with their memory, and the computer's memory and free disk, in bytes. None is unknown."""

    gpus: int = 0
    gpu_bytes: int | None = None
    cpu_bytes: int | None = None
    disk_free_bytes: int | None = None
    launched: int | None = None  # processes that a launcher has started


@dataclass(frozen=True)
class Layout:
    """Where the processes run. `assumed` says what had to be assumed, since it is not known."""

    strategy: str
    processes: int
    device: str
    sequence_parallel: int = 1  # processes that share each sequence
    assumed: tuple[str, ...] = ()

    @property
    def teams(self) -> int:
        return max(1, self.processes // self.sequence_parallel)


def layout_of(config: Any, machine: Machine) -> Layout:
    """Strategy, processes and device of a configuration on a machine, with what had to be assumed."""
    strategy = config.strategy
    device = _device(strategy, machine)
    if strategy.name == "single":
        return Layout("single", 1, device, assumed=_assumed_of_one(strategy.device.name, device, machine))
    processes = machine.launched or strategy.num_processes or machine.gpus or ASSUMED_PROCESSES
    team = strategy.sequence_parallel
    if machine.gpus or device == "cpu":
        return Layout(strategy.name, processes, device, team)
    source = "strategy.num_processes" if strategy.num_processes else "num_processes unset"
    assumed = f"no GPU here: planned for {processes} GPU processes ({source})"
    return Layout(strategy.name, processes, device, team, (assumed,))


def _device(strategy: Any, machine: Machine) -> str:
    """Several processes are meant for GPUs, even if this machine has none."""
    wanted: str = strategy.device.name
    if wanted != "auto":
        return wanted
    return "cuda" if machine.gpus or strategy.name != "single" else "cpu"


def _assumed_of_one(wanted: str, device: str, machine: Machine) -> tuple[str, ...]:
    if device == "cuda" and not machine.gpus:
        return ("no GPU here: planned for one (strategy.device=cuda)",)
    if device == "cpu" and wanted == "auto":
        return ("no GPU here: planned for this CPU; strategy.device=cuda or strategy=fsdp plans for GPUs",)
    return ()


def setting_of(config: Any, layout: Layout, *, trains: bool) -> Setting:
    """How a process holds and computes its share of the model. Without `trains` no weight takes a gradient."""
    strategy = config.strategy
    sharded = layout.strategy in SHARDED
    dtype = compute_dtype(strategy.compute_dtype, config.model.dtype, layout.device)
    return Setting(
        device=layout.device,
        sharded=sharded,
        copies=layout.processes if layout.strategy == "ddp" else 1,
        shards=layout.processes if sharded else 1,
        offloaded=layout.strategy == "fsdp_offload",
        weight_bytes=2 if config.model.dtype is Dtype.bfloat16 else 4,
        compute_bytes=2 if dtype is Dtype.bfloat16 else 4,
        checkpointing=strategy.activation_checkpointing and trains,
        adapters=_adapters(config) if trains else NO_ADAPTERS,
        trains=trains,
        reference=_reference(config),
        reference_renewed=isinstance(config, TrainConfig) and config.reference.refresh_every > 0,
        reference_offloaded=strategy.reference_offload and sharded and layout.device == "cuda",
        generates_gathered=strategy.gather_for_generation,
        quantization=config.model.quantization.name,
        states=config.optim.states.value if trains and isinstance(config, TrainConfig) else "float32",
        saves_beside=trains and isinstance(config, TrainConfig) and config.checkpoint.beside,
    )


def _adapters(config: Any) -> Adapters:
    lora = config.model.lora
    targets = lora.target_modules
    return Adapters(lora.rank or 0, None if targets is None else tuple(targets))


def _reference(config: Any) -> str:
    """As `Setting.reference` has it: none, a copy, or the policy itself with its adapters off."""
    if not _runs_reference(config):
        return "none"
    return "shared" if config.model.lora.rank and config.reference.name == "initial" else "copy"


def _runs_reference(config: Any) -> bool:
    """`dgpo rollout` runs each reference that it is given, to show distances; training only one that it needs."""
    if isinstance(config, EvalConfig) or config.reference.name == "none":
        return False
    return isinstance(config, RolloutConfig) or needs_reference(config.algo, config.gating)
