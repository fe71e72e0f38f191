"""The arms of a swap test, and what they come to: accuracy against the share of tokens that the other model chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dgpo_cli.core.intervals import AvgAtK, MeanReward, avg_interval, mean_interval
from dgpo_cli.evidence.swapping import AtRandom, Rule, Swapped, calibrated, everywhere, key_of, nowhere

Draw = Callable[[Rule], list[Swapped]]
Correct = Callable[[list[Swapped]], list[bool]]
ENDS = ("nothing", "everything")
CONTROLS = ("random", "low")  # as many places at random; the places where the models differ least


@dataclass(frozen=True)
class Arm:
    """One way of swapping: its completions, and whether each is right."""

    name: str  # nothing | everything | high | random | low
    fraction: float  # that was asked for
    threshold: float | None
    drawn: list[Swapped]
    correct: list[bool]

    @property
    def share(self) -> float:
        """Of the tokens, those that the other model chose."""
        tokens = sum(len(one.swapped) for one in self.drawn)
        return sum(sum(one.swapped) for one in self.drawn) / tokens

    def accuracy(self) -> AvgAtK:
        by_prompt = _by_prompt(self)
        return avg_interval([sum(own) for own in by_prompt], [len(own) for own in by_prompt])

    def above(self, other: Arm) -> MeanReward:
        """The accuracy less that of an arm of the same prompts, by prompt: they share problems and random numbers."""
        pairs = zip(_by_prompt(self), _by_prompt(other), strict=True)
        return mean_interval([[sum(a) / len(a) - sum(b) / len(b)] for a, b in pairs])


def arms(draw: Draw, calibrate: Draw, correct: Correct, *, fractions: Sequence[float], seed: int) -> list[Arm]:
    """Both ends, and for each fraction the swap with its controls.

    draw: the test's completions under a rule. calibrate: others, which thresholds are found on. `random` swaps as many
    places of each completion as `high` did; `low` has a threshold of its own, for the same share.
    """

    def arm(name: str, fraction: float, rule: Rule, threshold: float | None = None) -> Arm:
        drawn = draw(rule)
        return Arm(name, fraction, threshold, drawn, correct(drawn))

    found = [arm("nothing", 0.0, nowhere), arm("everything", 1.0, everywhere)]
    alone = calibrate(nowhere)
    for fraction in sorted(set(fractions) - {1.0}):
        above = calibrated(calibrate, fraction, highest=True, first=alone)
        high = arm("high", fraction, above, above.threshold)
        below = calibrated(calibrate, fraction, highest=False, first=alone)
        found += [
            high,
            arm("random", fraction, AtRandom(high.drawn, seed)),
            arm("low", fraction, below, below.threshold),
        ]
    return found


def as_records(found: Sequence[Arm], way: str) -> list[dict[str, Any]]:
    """For JSON, one an arm; `high` with its lead over each control."""
    records = []
    for arm in found:
        record: dict[str, Any] = {
            "way": way,
            "arm": arm.name,
            "fraction": arm.fraction,
            "threshold": arm.threshold,
            "share": arm.share,
            "accuracy": asdict(arm.accuracy()),
        }
        if arm.name == "high":
            for other in found:
                if other.name in CONTROLS and other.fraction == arm.fraction:
                    lead = arm.above(other)
                    record[f"above_{other.name}"] = {"value": lead.mean, "ci95": lead.ci95}
        records.append(record)
    return records


def sample_records(arm: Arm, way: str) -> list[dict[str, Any]]:
    """A line a completion: what was written, and which of its tokens the other model chose."""
    return [
        {
            "way": way,
            "arm": arm.name,
            "fraction": arm.fraction,
            "index": one.rollout.request.prompt.problem.index,
            "sample": one.rollout.request.sample,
            "completion": one.rollout.text,
            "tokens": len(one.swapped),
            "swapped": [place for place, swapped in enumerate(one.swapped) if swapped],
            "correct": right,
        }
        for one, right in zip(arm.drawn, arm.correct, strict=True)
    ]


def _by_prompt(arm: Arm) -> list[list[bool]]:
    found: dict[int, list[bool]] = {}
    for one, right in zip(arm.drawn, arm.correct, strict=True):
        found.setdefault(key_of(one.rollout.request)[0], []).append(right)
    return [found[index] for index in sorted(found)]
