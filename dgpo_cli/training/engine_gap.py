"""How far the log-probs that an engine drew with are from those that the trainer computes for the same tokens."""

from __future__ import annotations

import torch

from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.types import Rollout


def logprob_gap(rollouts: list[Rollout], signals: TokenSignals) -> dict[str, float]:
    """Mean and largest size of trainer minus engine in nats, over the counted tokens that were scored.

    The size, so that gaps up and down do not cancel. `signals` [B, T]: of the policy that sampled, before any update.
    Empty where no rollout brings log-probs.
    """
    told = [
        (signals.logprobs[row, : int(signals.mask[row].sum())].double(), torch.tensor(rollout.logprobs).double())
        for row, rollout in enumerate(rollouts)
        if rollout.logprobs is not None
    ]
    gaps = [(trainer - engine[: len(trainer)]).abs() for trainer, engine in told if len(trainer)]
    if not gaps:
        return {}
    gap = torch.cat(gaps)
    return {"engine/logprob_gap_mean": float(gap.mean()), "engine/logprob_gap_max": float(gap.max())}
