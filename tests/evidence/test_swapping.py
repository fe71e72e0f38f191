"""The rules of the swap test by hand: distances, thresholds, places at random."""

from __future__ import annotations

import math

import pytest
import torch

from dgpo_cli.evidence.swapping import Above, AtRandom, Below, Rule, Swapped, calibrated, entropy, hellinger, kl
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest


def drawn(index: int, distances: list[float], swapped: list[bool] | None = None) -> Swapped:
    request = SampleRequest(Prompt(Problem(index, "p", (), ""), "", ()), 0, 0)
    marks = tuple(swapped or [False] * len(distances))
    return Swapped(Rollout(request, (0,) * len(distances), "", "stop"), tuple(distances), marks)


def test_distances_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    logits = p.log(), q.log()
    assert float(hellinger(*logits)) == pytest.approx(1 - math.sqrt(0.45) - math.sqrt(0.05), abs=1e-6)
    assert float(kl(*logits)) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert float(entropy(*logits)) == pytest.approx(math.log(2))


def test_a_threshold_leaves_the_share_that_was_asked_for() -> None:
    tokens = [drawn(0, [float(value) for value in range(100)])]
    high = calibrated(lambda _: tokens, 0.04, highest=True)
    low = calibrated(lambda _: tokens, 0.04, highest=False)
    request = tokens[0].rollout.request
    assert [value for value in range(100) if high(request, 0, value)] == [96, 97, 98, 99]
    assert [value for value in range(100) if low(request, 0, value)] == [0, 1, 2, 3]
    assert isinstance(high, Above)
    assert isinstance(low, Below)


def test_a_threshold_follows_what_is_written_under_it() -> None:
    """Swaps that bring the models nearer to each other leave fewer distances above an unmoved threshold."""
    moved = [drawn(0, [value / 10 for value in range(100)])]

    def draw(rule: Rule) -> list[Swapped]:
        return moved

    found = calibrated(draw, 0.1, highest=True, first=[drawn(0, [float(value) for value in range(100)])])
    assert found.threshold == pytest.approx(8.91)


def test_places_at_random_are_as_many_and_the_same_again() -> None:
    other = [drawn(index, [0.0] * 30, [place < 3 for place in range(30)]) for index in range(5)]
    chosen = [[place for place in range(30) if AtRandom(other, 7)(one.rollout.request, place, 0.0)] for one in other]
    assert [len(places) for places in chosen] == [3] * 5
    assert len({tuple(places) for places in chosen}) == 5
    again = AtRandom(other, 7)
    assert [place for place in range(30) if again(other[0].rollout.request, place, 9.0)] == chosen[0]
