"""Planned beside measured memory, a step that memory is too short for, and a reference that rests in CPU memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.plan import plan_of
from dgpo_cli.commands.probe import measure, probe_record
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.environment import STORE, place
from dgpo_cli.meeting import meet
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.processes import SOLO, Processes, join, leave
from dgpo_cli.training.optimizer import Optimizer, UpdateOutcome
from dgpo_cli.training.probe import give_freed_memory_back
from dgpo_cli.training.step import StepBatch
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater
from gpu_hour.checks import Hour
from gpu_hour.models import batch_of, language_model, made_up, save, shape, tidy

GIB = 2**30
ONE_PROCESS = ["strategy=fsdp", "strategy.num_processes=1"]


def planned(hour: Hour) -> None:
    for size in ("0.5B",) if hour.small else ("0.5B", "1.5B"):
        probe(hour, f"{size}", size)


def planned_lora(hour: Hour) -> None:
    probe(hour, "1.5B, LoRA of rank 16", "1.5B", "model.lora.rank=16", "model.dtype=bfloat16")


def planned_fsdp(hour: Hour) -> None:
    with joined(hour) as processes:
        probe(hour, "0.5B, fsdp with one process", "0.5B", *ONE_PROCESS, processes=processes)


def offloaded_reference(hour: Hour) -> None:
    """What it saves of the GPU's memory, and what it costs in time: the same update with and without."""
    with joined(hour) as processes:
        rests, stays = (
            probe(hour, f"reference_offload={rests}", "1.5B", *ONE_PROCESS, over, processes=processes)
            for rests, over in (
                ("true", "strategy.reference_offload=true"),
                ("false", "strategy.reference_offload=false"),
            )
        )
    saved = stays["measured_bytes"] - rests["measured_bytes"]
    planned = stays["predicted_bytes"] - rests["predicted_bytes"]  # nothing on a CPU, where both are one memory
    least, most = planned * 0.8 / GIB, planned * 1.2 / GIB
    hour.expect("saved", saved / GIB, least=least, most=most, unit="GiB", judged=hour.on_gpu, note="as planned")
    hour.tell("seconds with it over without", rests["seconds"] / stays["seconds"], "x")


def probe(hour: Hour, name: str, size: str, *overrides: str, processes: Processes = SOLO) -> dict[str, Any]:
    """One update of full length by the real updater, as `dgpo train probe=true` makes it."""
    folder = hour.folder / f"model_{size}"
    if not folder.is_dir():
        save(shape(hour, size), folder, hour)
    config = compose("train", settings(hour, folder, *overrides))
    plan = plan_of(config)
    record = probe_record(plan, measure(config, plan, processes))
    note = f"{record['measured_bytes'] / GIB:.2f} GiB at {record['phase']}, {record['tokens_per_second']:.0f} tokens/s"
    ratio = record["predicted_over_measured"]
    hour.expect(f"{name}: planned over measured", ratio, least=0.95, most=1.1, judged=hour.on_gpu, note=note)
    tidy()
    return record


def settings(hour: Hour, folder: Path, *overrides: str) -> list[str]:
    """Of a run on a saved model, with the bundled task's prompts."""
    completion, tokens, groups = (24, 256, 2) if hour.small else (998, 8192, 8)
    return [
        f"model.path={folder}",
        f"strategy.device={hour.device}",
        "data=digit_chain",
        "reward=exact",
        "logger=none",
        f"rollout.prompts_per_step={groups}",
        "rollout.group_size=4",
        f"rollout.max_completion_tokens={completion}",
        f"optim.tokens_per_microbatch={tokens}",
        *overrides,
    ]


@contextmanager
def joined(hour: Hour) -> Iterator[Processes]:
    """A run of one process that is a run of several all the same: over NCCL on a GPU."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", STORE: str(hour.folder / "store")}
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    here = place()
    assert here is not None
    yield join(meet(here, 60.0), device=hour.device, connect_seconds=60.0)
    leave()


def halving(hour: Hour) -> None:
    """A step in too little memory: it halves its micro-batches, and its gradient is that of a step that began so."""
    sizes = replace(shape(hour, "0.5B"), layers=2 if hour.small else 6)
    rows, prompt, completion = (8, 8, 240) if hour.small else (32, 32, 480)
    model = language_model(sizes, hour.device)
    model = replace(model, compute_dtype=torch.bfloat16 if hour.on_gpu else None)
    batch = batch_of(made_up(rows, prompt, completion, sizes.vocab_rows))
    whole = rows * (prompt + completion)
    roomy = one_step(model, batch, whole)
    tidy()
    for room in rooms(hour, model, batch, whole):
        said: list[str] = []
        with limited(hour, room):
            short = one_step(model, batch, whole, said.append)
        if short.tokens < whole:
            break
    hour.expect("budget over the one left", whole / short.tokens, least=2, note=said[0] if said else "nothing was said")
    direct = one_step(model, batch, short.tokens)
    for name, other in (("a step that began with the smaller budget", direct), ("a step with room", roomy)):
        gap = abs(short.norm / other.norm - 1)
        hour.expect(f"norm of the gradient beside {name}", gap, most=2e-3, note="relative")
    hour.expect("updates made", short.applied, least=1, most=1)


@dataclass(frozen=True)
class Done:
    """What a step's update was: the norm of its gradient, how many were applied, and the budget that it ended with."""

    norm: float
    applied: int
    tokens: int


class Counted(Optimizer):
    """An optimizer that keeps what its last update was."""

    norm, applied = 0.0, 0

    def update(self, lr: float, loss: float = 0.0) -> UpdateOutcome:
        outcome = super().update(lr, loss)
        self.norm, self.applied = outcome.grad_norm, self.applied + outcome.applied
        return outcome


def one_step(model: LanguageModel, batch: StepBatch, tokens: int, say: Callable[[str], object] = len) -> Done:
    """One update, of weights that it leaves as they are: its rate is 0."""
    config = compose("train", ["algo=dgpo"])
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=max(batch.lengths))
    options = replace(OptimConfig(), tokens_per_microbatch=tokens, weight_decay=0.0)
    optimizer = Counted(model.model, options)

    def tell(text: str) -> None:
        say(text)

    updater = Updater(model, frozen_copy(model), algorithm, optimizer, options, temperature=1.0, say=tell)
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    updater.run(batch, lr=0.0, noise_floor=1e-9, guard=StopGuard(0.0))
    return Done(optimizer.norm, optimizer.applied, updater.budget.tokens)


def rooms(hour: Hour, model: LanguageModel, batch: StepBatch, whole: int) -> list[int]:
    """Bytes to allow, the most first, until one is too few: on a GPU of all, on a CPU beyond what is held."""
    if not hour.on_gpu:
        give_freed_memory_back()
        return [1 << power for power in range(25, 19, -1)]
    tidy()
    one_step(model, batch, whole)
    most = torch.cuda.max_memory_reserved()
    tidy()
    one_step(model, batch, whole // 4)
    least = torch.cuda.max_memory_reserved()
    tidy()
    return [int(least + share * (most - least)) for share in (0.6, 0.4, 0.2)]


@contextmanager
def limited(hour: Hour, room: int) -> Iterator[None]:
    """Within, allocations beyond `room` fail: by torch's own limit on a GPU, by the system's on a CPU."""
    if hour.on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(room / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    import psutil

    before = resource.getrlimit(resource.RLIMIT_AS)
    give_freed_memory_back()
    resource.setrlimit(resource.RLIMIT_AS, (int(psutil.Process().memory_info().vms) + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
