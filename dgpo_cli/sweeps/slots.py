"""How many jobs run at once, and the devices of each: GPUs of its own, or a share of the cores and of the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dgpo_cli.commands.plan import plan_of, this_machine
from dgpo_cli.config.groups import Device
from dgpo_cli.config.sweep_groups import SweepConfig
from dgpo_cli.errors import ConfigError, DgpoError

GPUS = "CUDA_VISIBLE_DEVICES"
SPARE = 0.1  # of the memory that is free now is left to others


@dataclass(frozen=True)
class Slots:
    """Places for jobs. `devices`: what CUDA_VISIBLE_DEVICES is in each; empty on a CPU."""

    count: int
    why: str
    devices: tuple[str, ...] = ()
    threads: int | None = None  # of a job that names none, so that jobs side by side share the cores

    def environment(self, place: int) -> dict[str, str]:
        return {GPUS: self.devices[place % len(self.devices)]} if self.devices else {}


def slots_for(settings: SweepConfig, configs: list[Any]) -> Slots:
    """The places for jobs of these configurations on this machine.

    Raises:
        ConfigError: a job wants more GPUs than there are.
    """
    gpus = visible_gpus(this_machine().gpus)
    on_gpu = [config for config in configs if config.strategy.device is not Device.cpu]
    if gpus and on_gpu:
        return gpu_slots(settings, gpus, [config.strategy for config in on_gpu], len(configs))
    return cpu_slots(settings, configs, cores=len(os.sched_getaffinity(0)), free_bytes=_free_bytes())


def visible_gpus(count: int) -> list[str]:
    """What names each GPU that this process sees, of `count`, in CUDA_VISIBLE_DEVICES."""
    named = [name.strip() for name in os.environ.get(GPUS, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def gpu_slots(settings: SweepConfig, gpus: list[str], strategies: list[Any], jobs: int) -> Slots:
    """A place for each `gpus_per_job` GPUs. With more jobs at once than places, several jobs share one."""
    each = settings.gpus_per_job or max(_gpus_of(strategy, len(gpus)) for strategy in strategies)
    if each > len(gpus):
        raise ConfigError(f"sweep.gpus_per_job: {each} GPUs a job, and there are {len(gpus)}", "fewer a job")
    groups = tuple(",".join(gpus[at : at + each]) for at in range(0, len(gpus) - each + 1, each))
    count = min(jobs, settings.jobs_at_once or len(groups))
    return Slots(count, f"each takes {each} of {len(gpus)} GPUs", groups)


def _gpus_of(strategy: Any, gpus: int) -> int:
    return 1 if strategy.name == "single" else strategy.num_processes or gpus


def cpu_slots(settings: SweepConfig, configs: list[Any], *, cores: int, free_bytes: int) -> Slots:
    """As many jobs as cores and memory hold. A job without a number of threads has all cores, unless told otherwise."""
    needed = max(_threads_of(config) or cores for config in configs)
    if settings.jobs_at_once is not None:
        count = min(len(configs), settings.jobs_at_once)
        return Slots(count, "sweep.jobs_at_once", threads=max(1, cores // count) if count > 1 else None)
    largest = max(_bytes_of(configs), default=0)
    by_memory = int(free_bytes * (1 - SPARE)) // largest if largest else len(configs)
    by_cores = cores // needed
    count = max(1, min(len(configs), by_cores, by_memory))
    memory = f", {largest / 1e9:.2g} of {free_bytes / 1e9:.2g} GB" if largest else ""
    return Slots(count, f"each takes {min(needed, cores)} of {cores} cores{memory}")


def _threads_of(config: Any) -> int | None:
    threads = config.strategy.threads or config.model.threads
    return None if threads is None else threads * (config.strategy.num_processes or 1)


def _bytes_of(configs: list[Any]) -> Iterator[int]:
    """The planned peaks, once for jobs whose memory is the same; nothing of those that have no plan."""
    seen = set()
    for config in configs:
        parts = ("model", "rollout", "optim", "engine", "strategy", "benchmark")
        same = repr([getattr(config, part, None) for part in parts])
        if same in seen:
            continue
        seen.add(same)
        try:
            made = plan_of(config)
        except DgpoError:
            continue
        yield made.peak_bytes * made.layout.processes


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
