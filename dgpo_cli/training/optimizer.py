"""AdamW in float32 and the learning rate of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.groups import Schedule

CHANGED_SAMPLE = 65_536  # weights of each tensor whose change is watched


def learning_rate(step: int, steps: int, settings: OptimConfig, decay_from: tuple[int, float] | None = None) -> float:
    """The learning rate of step `step` (from 1): linear warm-up, then the schedule, which ends at the last step.

    `decay_from` is a step and the learning rate there, from which a decay goes on to an end that a resume has moved.
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
    """What an optimizer update did. `applied` is False where the loss or its gradient was not finite."""

    applied: bool
    grad_norm: float  # before clipping
    changed_fraction: float  # of the weights watched


class Optimizer:
    """AdamW over the trainable weights; matrices decay, vectors (norms and biases) do not."""

    def __init__(self, model: torch.nn.Module, settings: OptimConfig) -> None:
        self.settings = settings
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decayed = [parameter for parameter in self.parameters if parameter.ndim >= 2]
        plain = [parameter for parameter in self.parameters if parameter.ndim < 2]
        self.adam = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.lr,
            betas=(settings.betas[0], settings.betas[1]),
            eps=settings.eps,
            # In one kernel on a GPU: otherwise an update holds another float of every weight for a moment.
            fused=True if self.parameters and all(weight.is_cuda for weight in self.parameters) else None,
        )

    def zero_grad(self) -> None:
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def update(self, lr: float, loss: float = 0.0) -> UpdateOutcome:
        """Clip, check and apply the gradient that stands in the weights, then drop it; `loss` must be finite too."""
        limit = self.settings.grad_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
        if not (math.isfinite(norm) and math.isfinite(loss)):
            self.zero_grad()
            return UpdateOutcome(False, norm, 0.0)
        before = [_watched(parameter).clone() for parameter in self.parameters]
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        changed = sum(
            int((_watched(parameter) != old).sum()) for parameter, old in zip(self.parameters, before, strict=True)
        )
        self.zero_grad()
        return UpdateOutcome(True, norm, changed / max(1, sum(old.numel() for old in before)))

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state)


def _watched(parameter: Tensor) -> Tensor:
    """Up to 65,536 weights at even distances: a copy of every weight would cost as much memory as the model."""
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // CHANGED_SAMPLE)]
