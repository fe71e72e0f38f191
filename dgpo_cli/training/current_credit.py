"""Credit under gating.score_policy=current: what is kept of the reference for it, and what trained.

Each update gets credit by the policy as it is then. The reference does not change within a step, so its hidden states
are computed once and kept in CPU memory: 2 or 4 bytes times D a counted token, where logits would take V.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import MicroBatch
from dgpo_cli.models.scoring import predictive_states


class ReferenceStates:
    """The reference's hidden states at the counted tokens of a step's rollouts, of those that this process scores.

    A reference whose head cannot be told apart gives logits: too large to keep, so it runs again.
    """

    def __init__(self, reference: LanguageModel) -> None:
        self._reference = reference
        self._of_row: dict[int, Tensor] = {}  # [T_i, D] each, on the CPU

    @torch.no_grad()
    def __call__(self, batch: MicroBatch) -> Tensor:
        """Hidden states [n, D] of a micro-batch, as `predictive_states` gives them."""
        if all(row in self._of_row for row in batch.rows):
            return torch.cat([self._of_row[row] for row in batch.rows]).to(self._reference.device)
        states = predictive_states(self._reference, batch)
        if self._reference.has_head:
            self._of_row |= dict(zip(batch.rows, states.cpu().split(batch.lengths), strict=True))
        return states


class UsedCredit:
    """The credit of a step's updates: of each rollout the mean over those that it trained in, and their diagnostics."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """shape: [B, T] of the step."""
        self._weights, self._score = torch.zeros(shape), torch.zeros(shape)
        self._times = torch.zeros(shape[0])
        self._diagnostics: list[dict[str, float | None]] = []

    def add(self, rows: list[int], credit: Credit, diagnostics: dict[str, float | None]) -> None:
        """An update that was applied, with the rows that it trained."""
        self._weights[rows] += credit.weights[rows]
        self._score[rows] += credit.score[rows]
        self._times[rows] += 1
        self._diagnostics.append(diagnostics)

    def credit(self) -> Credit:
        """0 for a rollout that was in no update."""
        times = self._times.clamp(min=1)[:, None]
        gate = self.diagnostics().get("credit/noise_gate")
        return Credit(self._weights / times, self._score / times, 1.0 if gate is None else gate)

    def times(self) -> list[int]:
        """Updates that each rollout trained in, [B]."""
        return [int(count) for count in self._times]

    def diagnostics(self) -> dict[str, float | None]:
        """The mean of each over the updates that have it."""
        found: dict[str, list[float]] = {}
        for one in self._diagnostics:
            for name, value in one.items():
                if value is not None:
                    found.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in found.items()}


def joined(parts: list[TokenSignals]) -> TokenSignals:
    """The signals of a batch from those of parts of its rows, which are 0 elsewhere."""

    def total(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.stack(values).sum(0)

    logprobs, entropy = total("logprobs"), total("entropy")
    assert logprobs is not None
    assert entropy is not None
    mask = torch.stack([part.mask for part in parts]).any(0)
    return TokenSignals(mask, logprobs, entropy, total("ref_logprobs"), total("hellinger"))
