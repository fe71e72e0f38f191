"""What gating.score_policy=current keeps during a step: the reference's hidden states, and the credit that trained.

Each update gets credit by the policy as it is then, so the policy is scored before each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import Held, MicroBatch
from dgpo_cli.models.scoring import predictive_states


class ReferenceStates:
    """The reference's hidden states at the counted tokens of the step's rollouts, of those that this process scores."""

    # The reference does not change within a step, so it runs once, and what it says is kept in CPU memory. Hidden
    # states are small enough for that: D numbers of 2 or 4 bytes a counted token; logits would be V. A reference
    # whose head cannot be told apart gives logits alone: that one runs again each time.

    def __init__(self, reference: LanguageModel) -> None:
        self._reference = reference
        self._of: dict[Held, Tensor] = {}  # [n, D] each, on the CPU

    @torch.no_grad()
    def __call__(self, batch: MicroBatch) -> Tensor:
        """What `predictive_states` gives for a micro-batch: hidden states [n, D], or logits [n, V]."""
        # Micro-batches are cut and dealt anew when memory was short. A row that another process had runs here then.
        if all(held in self._of for held in batch.held):
            return torch.cat([self._of[held] for held in batch.held]).to(self._reference.device)
        states = predictive_states(self._reference, batch)
        if self._reference.has_head:
            counts = [held.stop - held.start for held in batch.held]
            self._of |= dict(zip(batch.held, states.cpu().split(counts), strict=True))
        return states


class UsedCredit:
    """The credit that a step's updates were made with: for each rollout its mean over the updates that it was in."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """shape: [B, T] of the step."""
        self._weights, self._score = torch.zeros(shape), torch.zeros(shape)
        self._times = torch.zeros(shape[0])
        self._diagnostics: list[dict[str, float | None]] = []

    def add(self, rows: list[int], credit: Credit, diagnostics: dict[str, float | None]) -> None:
        """Count an update that was applied: the rows that it trained, its credit [B, T] and what is logged of that."""
        self._weights[rows] += credit.weights[rows]
        self._score[rows] += credit.score[rows]
        self._times[rows] += 1
        self._diagnostics.append(diagnostics)

    def credit(self) -> Credit:
        """The mean [B, T] of each rollout's weights and scores; 0 for a rollout that was in no update."""
        times = self._times.clamp(min=1)[:, None]
        gate = self.diagnostics().get("credit/noise_gate")
        return Credit(self._weights / times, self._score / times, 1.0 if gate is None else gate)

    def times(self) -> list[int]:
        """[B]: in how many updates each rollout was."""
        return [int(count) for count in self._times]

    def diagnostics(self) -> dict[str, float | None]:
        """The mean of each value over the updates that have it."""
        found: dict[str, list[float]] = {}
        for one in self._diagnostics:
            for name, value in one.items():
                if value is not None:
                    found.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in found.items()}


def joined(parts: list[TokenSignals]) -> TokenSignals:
    """The signals [B, T] of a batch from those of parts of its rows: [B, T] each, and 0 in the other rows."""

    def total(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.stack(values).sum(0)

    logprobs, entropy = total("logprobs"), total("entropy")
    assert logprobs is not None
    assert entropy is not None
    mask = torch.stack([part.mask for part in parts]).any(0)
    return TokenSignals(mask, logprobs, entropy, total("ref_logprobs"), total("hellinger"), total("grad_norm"))
