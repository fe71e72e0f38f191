"""What k samples a problem are worth: avg@k, pass@k and maj@k. Error bars are in `intervals`.

A problem is a list of samples; a sample is right or wrong and may have an extracted answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def doubling(k: int) -> list[int]:
    """1, 2, 4, ... below k, and k itself: the values that pass@k and maj@k are reported for unless others are asked."""
    return [*(1 << power for power in range(max(0, k - 1).bit_length())), k]


def avg_at_k(correct: Sequence[int], samples: Sequence[int]) -> float:
    """Mean over problems of (right samples / samples): the expected accuracy of one sample.

    `correct[i]` of `samples[i]` are right. Raises ValueError without problems, or for an impossible count.
    """
    if not correct or len(correct) != len(samples):
        raise ValueError(f"avg@k needs counts for the same problems, got {len(correct)} and {len(samples)}")
    for right, drawn in zip(correct, samples, strict=True):
        _check_counts(drawn, right)
    return math.fsum(right / drawn for right, drawn in zip(correct, samples, strict=True)) / len(correct)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that at least one of k samples is right, estimated without bias from n drawn samples (arXiv 2107.03374).

    1 - C(n-c, k) / C(n, k), as the product 1 - prod over i = n-c+1 .. n of (1 - k/i), which never overflows.
    `correct` (c) of `samples` (n) are right. Raises ValueError for k > n: fewer samples than k cannot say.
    """
    _check_counts(samples, correct)
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem and k >= 1, got {samples} samples")
    if samples - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - correct + 1, samples + 1))


def majority(answers: Sequence[str | None]) -> int | None:
    """The first sample that gave the most common answer; None when no sample has one.

    Samples without an answer do not vote. Ties go to the answer that was seen first.
    """
    first: dict[str, int] = {}
    votes: dict[str, int] = {}
    for position, answer in enumerate(answers):
        if answer is not None:
            first.setdefault(answer, position)
            votes[answer] = votes.get(answer, 0) + 1
    return first[max(votes, key=lambda answer: votes[answer])] if votes else None


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Accuracy of the majority answer of k samples, for one problem.

    The n samples are cut into floor(n/k) blocks of k in the order drawn; each block votes (`majority`), a block without
    any answer is wrong, and the result is the share of blocks that are right. So maj@n is the plain majority vote, and
    maj@1 the share of right samples. Raises ValueError for k > n.
    """
    samples = len(answers)
    if len(correct) != samples:
        raise ValueError(f"maj@k needs one verdict an answer, got {len(correct)} for {samples}")
    if not 1 <= k <= samples:
        raise ValueError(f"maj@{k} needs at least {k} samples a problem and k >= 1, got {samples} samples")
    starts = range(0, samples - k + 1, k)
    winners = [(start, majority(answers[start : start + k])) for start in starts]
    return sum(winner is not None and correct[start + winner] for start, winner in winners) / len(starts)


def _check_counts(samples: int, correct: int) -> None:
    if samples < 1 or not 0 <= correct <= samples:
        raise ValueError(f"expected 0 <= right samples <= samples and at least one sample, got {correct} of {samples}")
