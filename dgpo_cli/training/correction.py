"""The correction for rollouts that another policy than the trainer's drew (engine.correction): when it is due, and what
it does to a step's tokens. The maths is in core/off_policy.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.off_policy import OffPolicy, effective_share, off_policy
from dgpo_cli.types import Rollout


@dataclass(frozen=True)
class Correction:
    """How a run corrects its rollouts."""

    kind: str = "none"  # none | token | sequence | mask
    cap: float = 2.0
    # Log-probs of the engine, for the weights that train, are the trainer's own. A difference in the last bits comes
    # of how tokens are batched then, and both of them are as good.
    computes_as_trained: bool = True

    def is_due(self, *, drawn_by_another: bool) -> bool:
        """Whether factors of a batch can be anything but 1."""
        return self.kind != "none" and (drawn_by_another or not self.computes_as_trained)

    def of(self, rollouts: Sequence[Rollout], old_logprobs: Tensor, mask: Tensor) -> OffPolicy:
        """The factors [b, T] of some rollouts, by the trainer's log-probs [b, T] before any update of the step.

        A rollout that brings no log-probs is left as it is.
        """
        told = [rollout.logprobs is not None for rollout in rollouts]
        counted = mask.cpu() & torch.tensor(told)[:, None]
        drawn = torch.zeros(counted.shape, dtype=torch.float64)
        for row, rollout in enumerate(rollouts):
            values = (rollout.logprobs or ())[: counted.shape[1]]
            drawn[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
        return off_policy(old_logprobs.cpu(), drawn, counted, kind=self.kind, cap=self.cap)


UNCORRECTED = Correction()


def correction_metrics(
    correction: Correction, rollouts: list[Rollout], signals: TokenSignals, *, drawn_by_another: bool
) -> dict[str, float]:
    """engine/correction_ess and engine/corrected_fraction over the counted tokens that were scored.

    Empty without a correction. Where none is due every factor is 1, and that is what they say.
    """
    if correction.kind == "none" or not bool(signals.mask.any()):
        return {}
    ess, fraction = 1.0, 0.0
    if correction.is_due(drawn_by_another=drawn_by_another):
        found = correction.of(rollouts, signals.logprobs, signals.mask)
        ess = effective_share(found.factors[signals.mask])
        fraction = float(found.corrected[signals.mask].double().mean())
    return {"engine/correction_ess": ess, "engine/corrected_fraction": fraction}
