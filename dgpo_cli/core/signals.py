"""The signals that token-level credit can follow: what each reads, and how it is written in a formula.

This is the one table of them. The configuration takes their names from here before torch is imported, so this file
imports it for type checking only; what is done with a score is in `credit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The fields of `credit.TokenSignals` that are there only if a reference was scored.
MEASURED_FROM_REFERENCE = frozenset({"hellinger", "ref_logprobs"})
# Those that no model gives: whoever has the right answer marks them.
READ_FROM_ANSWER = frozenset({"first_error"})
ENTROPY_EPS = 1e-6  # nats, of `relative_surprisal`: ours, for the published value is not known to us


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(q - p) - (q - p) - 1 >= 0, the estimate of KL(policy | reference) at a sampled token (GRPO, 2402.03300)."""
    difference = ref_logprobs - logprobs
    return difference.expm1() - difference


@dataclass(frozen=True)
class SignalRule:
    """One signal: its symbol in a formula, and its score of each token.

    `score` takes the fields of `credit.TokenSignals` that `reads` names, in that order, each [B, T]. It gets nothing
    else, so `reads` cannot leave anything out.
    """

    symbol: str
    reads: tuple[str, ...]
    score: Callable[..., Tensor]
    signed: bool = False  # can be below 0

    @property
    def measured_from_reference(self) -> bool:
        return not MEASURED_FROM_REFERENCE.isdisjoint(self.reads)

    @property
    def reads_answer(self) -> bool:
        return not READ_FROM_ANSWER.isdisjoint(self.reads)


SIGNALS: dict[str, SignalRule] = {
    "hellinger": SignalRule("d", ("hellinger",), lambda distance: distance),
    "hellinger_root": SignalRule("√d", ("hellinger",), lambda distance: distance.sqrt()),
    "entropy": SignalRule("H in nats", ("entropy",), lambda entropy: entropy),
    "surprisal": SignalRule("−log p", ("logprobs",), lambda logprobs: -logprobs),
    "kl": SignalRule("k3", ("logprobs", "ref_logprobs"), k3),
    "logratio": SignalRule(
        "(log p − log q)", ("logprobs", "ref_logprobs"), lambda logprobs, ref: logprobs - ref, signed=True
    ),
    # 1 - p of the token that was drawn: how rare it was.
    "rarity": SignalRule("(1 − p)", ("logprobs",), lambda logprobs: -logprobs.expm1()),
    # |d log p / d logits| = sqrt(1 - 2 p + sum_a p_a^2), streamed with the log-probs.
    "grad_norm": SignalRule("|∇|", ("grad_norm",), lambda grad_norm: grad_norm),
    # Surprisal over its own expectation, which is the entropy in nats.
    "relative_surprisal": SignalRule(
        "−log p / H", ("logprobs", "entropy"), lambda logprobs, entropy: -logprobs / (entropy + ENTROPY_EPS)
    ),
    # 1 on the token that is known to be wrong first, else 0. It reads the answer, and its name says so.
    "oracle_first_error": SignalRule("[first wrong token]", ("first_error",), lambda first_error: first_error),
}
