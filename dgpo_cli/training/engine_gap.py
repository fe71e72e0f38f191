"""How far the log-probs that an engine drew with are from those that the trainer computes for the same tokens.

The trainer takes its own log-probs for the old ones. The gap says how far that is off, by the rounding of another
kernel or dtype, or by weights that are not the same.
"""

from __future__ import annotations

import torch

from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.types import Rollout


def logprob_gap(rollouts: list[Rollout], signals: TokenSignals) -> dict[str, float]:
    """Mean and largest |trainer - engine| in nats, over the counted tokens that were scored.

    The absolute value, for else gaps up and down would cancel. `signals` [B, T] are by the policy before any update.
    Empty if no rollout brings log-probs.
    """
    counts = signals.mask.sum(dim=1).tolist()
    rows = [row for row, rollout in enumerate(rollouts) if rollout.logprobs is not None and counts[row]]
    told = [value for row in rows for value in (rollouts[row].logprobs or ())[: counts[row]]]
    if not told:
        return {}
    gap = (signals.logprobs[rows][signals.mask[rows]].double() - torch.tensor(told).double()).abs()
    return {"engine/logprob_gap_mean": float(gap.mean()), "engine/logprob_gap_max": float(gap.max())}
