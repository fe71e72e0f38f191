"""The alternatives of stored tokens as a page carries them: packed lists, one entry after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dgpo_cli.records.stored_rollouts import StoredRollouts
from dgpo_cli.reporting.page import packed

MOST = 255  # of a token, whose number is one byte


@dataclass
class PageAlternatives:
    """Entries of the counted tokens of all rollouts, in their order. A rollout without any has none at its tokens."""

    counts: list[int] = field(default_factory=list)  # of each counted token
    tokens: list[int] = field(default_factory=list)  # of each entry, as the page numbers token texts
    logprobs: list[float] = field(default_factory=list)
    ref_logprobs: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)  # of each counted token; 0 if it is not known
    ref_ranks: list[int] = field(default_factory=list)

    def add(self, stored: StoredRollouts, number: Callable[[tuple[str, int | None]], int]) -> None:
        """`number` gives a token's number from its text and id."""
        for row, record in enumerate(stored.records):
            length = int(stored.signals.mask[row].sum())
            nothing: list[Any] = [[]] * length
            ids = record.get("alternatives") or nothing
            texts = record.get("alternative_tokens") or {}
            logprobs = record.get("alternative_logprobs") or nothing
            ref_logprobs = record.get("alternative_ref_logprobs") or [[None] * len(each) for each in ids]
            for each, p, q in zip(ids, logprobs, ref_logprobs, strict=True):
                self.counts.append(min(MOST, len(each)))
                self.tokens += [number((texts.get(str(token), f"<id:{token}>"), token)) for token in each[:MOST]]
                self.logprobs += map(_logprob, p[:MOST])
                self.ref_logprobs += map(_logprob, q[:MOST])
            self.ranks += record.get("rank") or [0] * length
            self.ref_ranks += record.get("ref_rank") or [0] * length

    def packed(self, *, wide: bool, has_reference: bool) -> dict[str, Any] | None:
        """What the script reads; None if no rollout has any."""
        if not self.tokens:
            return None
        return {
            "counts": packed(self.counts, "u1"),
            "tokens": packed(self.tokens, "u4" if wide else "u2"),
            "p": packed(self.logprobs, "f4"),
            "q": packed(self.ref_logprobs, "f4") if has_reference else None,
            "ranks": packed(self.ranks, "u4"),
            "ref_ranks": packed(self.ref_ranks, "u4") if has_reference else None,
        }


def _logprob(value: float | None) -> float:
    return float("-inf") if value is None else value
