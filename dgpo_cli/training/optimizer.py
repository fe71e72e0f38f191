"""AdamW, its moments in float32 or 8 bits, and the learning rate of a step, on one process or several.

If every process holds the whole model, the gradients are summed here; sharded weights sum theirs during the backward
pass. Each saved file says where its rows belong in the whole tensor, so any number of processes can go on from it.

torch.distributed.checkpoint could write and read these files too. It is not used: its own format is a pickle, its
safetensors writer makes a second copy of the moments in memory, a missing file can leave rows unread without a word,
and no torch version promises to read the files of another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.groups import OptimizerStates, Schedule
from dgpo_cli.core.directions import adam_direction, cosine, inner_products
from dgpo_cli.errors import RunError
from dgpo_cli.files import Written
from dgpo_cli.models.sharding import full, is_sharded, local, rows_of
from dgpo_cli.planning.pieces import GRADIENTS_AT_ONCE, WATCHED_WEIGHTS
from dgpo_cli.processes import SOLO, Processes, watching_for_loss
from dgpo_cli.progress import beat, each, together
from dgpo_cli.tensor_files import write_tensors
from dgpo_cli.traffic import CONTROL, GRADIENTS, TRAFFIC
from dgpo_cli.training.eight_bit import MOMENTS_8BIT, OF_CODES, adamw_8bit, decoded

MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(step: int, steps: int, settings: OptimConfig, decay_from: tuple[int, float] | None = None) -> float:
    """The learning rate of step `step` (from 1): linear warm-up, then the schedule, which ends at the last step.

    `decay_from`: a step and its learning rate. If a resume has moved the end, the decay goes on from there.
    """
    if step <= settings.warmup_steps:
        return settings.lr * step / settings.warmup_steps
    if settings.schedule is Schedule.constant:
        return settings.lr
    start, peak = decay_from if decay_from is not None else (settings.warmup_steps, settings.lr)
    progress = min(1.0, (step - start) / max(1, steps - start))
    if settings.schedule is Schedule.linear:
        remaining = 1.0 - progress
    else:
        remaining = (1.0 + math.cos(math.pi * progress)) / 2
    final = settings.final_lr_fraction * settings.lr
    return final + (peak - final) * remaining


@dataclass(frozen=True)
class UpdateOutcome:
    """What an optimizer update did. `applied` is False if the loss or its gradient was not finite."""

    applied: bool
    grad_norm: float  # before clipping
    changed_fraction: float  # of the weights watched


class Optimizer:
    """AdamW over the trainable weights; matrices decay, vectors (norms and biases) do not."""

    def __init__(
        self, model: torch.nn.Module, settings: OptimConfig, processes: Processes = SOLO, *, offloaded: bool = False
    ) -> None:
        """offloaded: weights rest on the CPU and compute elsewhere."""
        self.settings = settings
        self.processes = processes
        self.named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        self.parameters = [weight for _, weight in self.named]
        self.sharded = any(is_sharded(weight) for weight in self.parameters)
        decayed = [parameter for parameter in self.parameters if parameter.ndim >= 2]
        plain = [parameter for parameter in self.parameters if parameter.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        low, high = settings.betas
        chosen: dict[str, Any] = {"lr": settings.lr, "betas": (low, high), "eps": settings.eps}
        self.states: str = settings.states.value
        self.adam: torch.optim.Optimizer
        if settings.states is OptimizerStates.float32:
            # One kernel on a GPU. The other implementations hold another float of every weight for a moment. On a CPU
            # it takes a quarter of the time, but rounds a weight otherwise: only where a GPU waits for it.
            on_gpu = bool(self.parameters) and all(weight.is_cuda for weight in self.parameters)
            fused = True if on_gpu or offloaded else None
            self.adam, self.moments = torch.optim.AdamW(groups, **chosen, fused=fused), MOMENTS
        else:
            self.adam, self.moments = adamw_8bit(groups, **chosen), MOMENTS_8BIT

    def zero_grad(self) -> None:
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def update(self, lr: float, loss: float = 0.0) -> UpdateOutcome:
        """Clip the gradient that stands in the weights, check it, apply it, drop it. `loss` must be finite too."""
        self._sum_gradients()
        norm = self.clipped_norm(self.settings.grad_clip or math.inf)
        beat()
        # One step with inf or NaN would spoil weights and moments for good; a step less costs nothing.
        if not (math.isfinite(norm) and math.isfinite(loss)):
            self.zero_grad()
            return UpdateOutcome(False, norm, 0.0)
        before = [_watched(parameter).clone() for parameter in self.parameters]
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        beat()
        self.zero_grad()
        return UpdateOutcome(True, norm, self._changed_fraction(before))

    def spent_norm(self) -> float:
        """The norm of the gradient that stands in the weights, which is then dropped."""
        self._sum_gradients()
        norm = self.clipped_norm(math.inf)
        self.zero_grad()
        return norm

    @torch.no_grad()
    def spent_gradient(self) -> list[Tensor | None]:
        """The gradient that stands in the watched weights, clipped as for an update; all of it is then dropped."""
        self._sum_gradients()
        self.clipped_norm(self.settings.grad_clip or math.inf)
        found = [None if weight.grad is None else _watched(weight.grad).clone() for weight in self.parameters]
        self.zero_grad()
        return found

    @torch.no_grad()
    def cosines(self, left: list[Tensor | None], right: list[Tensor | None]) -> tuple[float | None, float | None]:
        """Cosine of two spent gradients, and of what Adam would make of each now, over the watched weights."""
        gradients, updates = [], []
        for weight, a, b in zip(self.parameters, left, right, strict=True):
            if a is None or b is None:
                continue
            stands_for = local(weight).numel() / max(1, a.numel())
            gradients.append((a, b, stands_for))
            updates.append((self._direction(weight, a), self._direction(weight, b), stands_for))
        sums = torch.stack([inner_products(gradients), inner_products(updates)])
        if self.sharded:
            self.processes.total(sums)
        return cosine(sums[0]), cosine(sums[1])

    def _direction(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """What Adam would make of a gradient of the watched weights of `weight`."""
        state, (low, high) = self.adam.state.get(weight), self.settings.betas
        mean, square = (
            _watched(decoded(state, name)) if state else torch.zeros_like(gradient) for name in self.moments
        )
        steps = float(state["step"]) if state else 0.0
        return adam_direction(gradient, mean, square, steps, betas=(low, high), eps=self.settings.eps)

    def clipped_norm(self, limit: float) -> float:
        """Clip the gradient to `limit`. Returns its norm before that."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        return float(full(norm, CONTROL))

    def save(self, folder: Path) -> None:
        """Write the moments that this process holds into `folder`."""
        for job in self.jobs(folder):
            job()

    def jobs(self, folder: Path, *, copies: bool = False) -> Iterator[Callable[[], dict[Path, Written]]]:
        """To write the moments that this process holds. Without shards the main process writes them all.

        Each file says at which row of the whole tensor its rows begin. copies: it is done later, while they move.
        """
        # Without shards every process holds the same.
        if not self.sharded and not self.processes.main:
            return
        rank, size = (self.processes.rank, self.processes.size) if self.sharded else (0, 1)
        tensors: dict[str, Tensor] = {}
        starts: dict[str, int] = {}
        for name, weight in each(self.named):
            state = self.adam.state.get(weight)
            if not state:
                continue
            starts[name] = rows_of(weight.shape[0], rank, size)[0]
            tensors[f"{name}/step"] = torch.as_tensor(state["step"]).detach().cpu().reshape(1)
            for moment in (*self.moments, *(one for one in OF_CODES if one in state)):
                tensors[f"{name}/{moment}"] = local(state[moment]).detach().cpu()
        if copies:
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        path = folder / f"optimizer-{rank:05d}-of-{size:05d}.safetensors"
        yield lambda: {path: write_tensors(path, tensors, {"starts": json.dumps(starts)})}

    def load(self, folder: Path) -> None:
        """Read the moments that any number of processes saved in `folder`: of each weight, the rows held here.

        A weight that no file knows had no gradient before the save, and starts anew.

        Raises:
            RunError: a file is missing, the files do not hold all rows of a weight, or they hold moments of another
                kind than `optim.states`.
        """
        with ExitStack() as stack:
            files = [stack.enter_context(safe_open(path, framework="pt")) for path in _all_files(folder)]
            held = [(file, json.loads(file.metadata()["starts"]), set(file.keys())) for file in files]
            for name, weight in each(self.named):
                holders = [(file, starts[name], keys) for file, starts, keys in held if f"{name}/step" in keys]
                if not all(f"{name}/{self.moments[0]}" in keys for _, _, keys in holders):
                    raise RunError(
                        f"{folder} holds moments of another kind than optim.states={self.states}",
                        "a run goes on with the optim.states that it began with",
                    )
                parts = [(file, start) for file, start, _ in holders]
                if parts and self.states == "8bit":
                    self.adam.state[weight] = _coded_state(parts[0][0], name, weight, holders[0][2])
                elif parts:
                    self.adam.state[weight] = self._state_from(parts, name, weight, folder)

    def _state_from(self, parts: list[tuple[Any, int]], name: str, weight: Tensor, folder: Path) -> dict[str, Tensor]:
        """AdamW's state of one weight, from files with the row that each begins at."""
        step = parts[0][0].get_tensor(f"{name}/step").reshape(())
        # The fused kernel reads the count on its own device, the others read it on the CPU.
        state = {"step": step.to(local(weight).device) if self.adam.defaults["fused"] else step}
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            target = local(state[moment])
            found = _fill_rows(target, self._first_row(weight), f"{name}/{moment}", parts)
            # Zeros in place of moments would train on without a sign of it.
            if found != target.shape[0]:
                raise RunError(
                    f"{folder}: expected {target.shape[0]} rows of {name}/{moment}, found {found}",
                    "a file of the optimizer is missing: every process must see the same folder",
                )
        return state

    def _first_row(self, weight: Tensor) -> int:
        if not is_sharded(weight):
            return 0
        return rows_of(weight.shape[0], self.processes.rank, self.processes.size)[0]

    def _sum_gradients(self) -> None:
        if not self.sharded and not self.processes.alone:
            _sum_over_processes(self.parameters)

    def _changed_fraction(self, before: Sequence[Tensor]) -> float:
        """The share of the watched weights, over all processes, that are no longer what they were."""
        changed = sum(
            int((_watched(parameter) != old).sum()) for parameter, old in zip(self.parameters, before, strict=True)
        )
        counts = torch.tensor([changed, sum(old.numel() for old in before)], dtype=torch.int64)
        if self.sharded:
            self.processes.total(counts)
        return int(counts[0]) / max(1, int(counts[1]))


def _all_files(folder: Path) -> list[Path]:
    """The files of all processes that saved, whose number each has in its name. A weight may be in one of them alone.

    Raises:
        RunError: one is missing.
    """
    found = sorted(folder.glob("optimizer-*"))
    size = int(found[0].stem.rpartition("-of-")[2]) if found else 1
    expected = [folder / f"optimizer-{rank:05d}-of-{size:05d}.safetensors" for rank in range(size)]
    missing = [path.name for path in expected if path not in found]
    if missing:
        raise RunError(
            f"{folder}: {', '.join(missing[:3])} {'is' if len(missing) == 1 else 'are'} missing",
            "every process must see the same folder",
        )
    return expected


def _coded_state(file: Any, name: str, weight: Tensor, keys: set[str]) -> dict[str, Any]:
    """What bitsandbytes keeps of one weight: codes, or float32 of a small one. Such weights are never sharded."""
    found = [part for part in (*MOMENTS_8BIT, *OF_CODES) if f"{name}/{part}" in keys]
    parts = {part: file.get_tensor(f"{name}/{part}").to(weight.device) for part in found}
    return {"step": int(file.get_tensor(f"{name}/step")), **parts}


def _fill_rows(target: Tensor, first: int, key: str, parts: list[tuple[Any, int]]) -> int:
    """Put the rows of `key` that begin at `first` into `target`, from files that each hold some of them.

    Returns how many rows were found.
    """
    found = 0
    for file, start in parts:
        rows = file.get_slice(key)
        begin, end = max(first, start), min(first + target.shape[0], start + rows.get_shape()[0])
        if begin < end:
            target[begin - first : end - first].copy_(rows[begin - start : end - start])
            found += end - begin
    return found


@torch.no_grad()
def _sum_over_processes(parameters: Sequence[Tensor]) -> None:
    """Sum the gradients of all processes, many weights at a time. A weight without a gradient counts as 0.

    Each process must send the same weights in the same order, also one whose share of the work touched only some.
    """
    for weight in parameters:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    pending: list[Tensor] = []
    for number, weight in enumerate(parameters):
        assert weight.grad is not None
        pending.append(weight.grad)
        if sum(gradient.numel() for gradient in pending) >= GRADIENTS_AT_ONCE or number == len(parameters) - 1:
            flat = torch.cat([gradient.reshape(-1) for gradient in pending])
            with watching_for_loss(), together():
                dist.all_reduce(flat)
            TRAFFIC.count(GRADIENTS, 2 * flat.nbytes * (dist.get_world_size() - 1))
            for gradient, part in zip(pending, flat.split([gradient.numel() for gradient in pending]), strict=True):
                gradient.copy_(part.view_as(gradient))
            pending = []


def _watched(parameter: Tensor) -> Tensor:
    """About 65,536 weights at even distances: a copy of every weight would cost as much memory as the model."""
    flat = local(parameter.detach()).reshape(-1)
    return flat[:: max(1, flat.numel() // WATCHED_WEIGHTS)]
