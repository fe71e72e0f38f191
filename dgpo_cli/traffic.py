"""Bytes that the processes of a run bring to each other, by kind, counted where they are sent.

A collective is counted as what arrives in all processes together, by the least that such a collective takes: so every
process knows it without asking. How it is routed is the library's business. `n` bytes to P processes:

    broadcast n (P - 1)     gathering a whole of n: n (P - 1) for all, what the others hold for one
    sum n for all: 2 n (P - 1)     sum whose parts stay apart: n (P - 1)

What is sent to one process alone is counted where it is sent from, or where it is gathered.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = {
    "weights": "layers of a sharded model, gathered for a pass; weights sent out at the start or to an engine",
    "heads": "output heads, gathered for a pass",
    "gradients": "gradients, the head's among them",
    "sequences": "parts of sequences that several processes share, exchanged for attention",
    "samples": "prompts, completions, rewards",
    "signals": "numbers a token: log-probs, entropies, distances, credit",
    "checkpoint": "weights gathered to be saved",
    "control": "flags, orders, sums of a few numbers",
}
WEIGHTS, HEADS, GRADIENTS, SEQUENCES, SAMPLES, SIGNALS, CHECKPOINT, CONTROL = KINDS


@dataclass
class Traffic:
    """What has been counted since it was last taken."""

    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def count(self, kind: str, arrived: int) -> None:
        """Bytes that arrived somewhere.

        Raises:
            KeyError: there is no such kind.
        """
        self.bytes[kind] += arrived

    def taken(self) -> dict[str, int]:
        """The bytes by kind, which begin anew at 0."""
        found, self.bytes = self.bytes, dict.fromkeys(KINDS, 0)
        return found


TRAFFIC = Traffic()
