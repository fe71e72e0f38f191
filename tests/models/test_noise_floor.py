"""The distance of a model to itself: small, within the token budget, and above 0 if two ways of scoring differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from rollout_factory import LENGTHS, uneven_rollouts

from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.noise_floor import measure_noise_floor, noise_sizes


@pytest.fixture(scope="module")
def policy(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


def test_noise_floor_is_small_and_not_of_identical_passes(policy: LanguageModel) -> None:
    floor = measure_noise_floor(policy, uneven_rollouts(), LENGTHS, temperature=1.0, tokens=16384)
    assert 0.0 <= floor < 1e-9
    assert measure_noise_floor(policy, uneven_rollouts(), [0] * 5, temperature=1.0, tokens=16384) == 0.0


@pytest.mark.parametrize(
    ("tokens", "shapes"),
    [
        # Rows of 15, 11, 9 and 6 tokens: all of them padded to 15, then each alone.
        (60, [(4, 15), (1, 15), (1, 11), (1, 9), (1, 6)]),
        (59, [(3, 15), (1, 15), (1, 11), (1, 9), (1, 6), (1, 6)]),  # one counted token of row 1 has no half
        (30, [(2, 15), (1, 15), (1, 11), (2, 9), (1, 9), (1, 6)]),
        # None fits beside another: 15, 11, 9 and 6 whole, and with 5 of 9, 2 of 3, 3 of 5 and 1 of 1 counted tokens.
        (1, [(1, 15), (1, 11), (1, 11), (1, 10), (1, 9), (1, 7), (1, 6), (1, 6)]),
    ],
)
def test_the_noise_floor_is_measured_within_the_token_budget(
    policy: LanguageModel, tokens: int, shapes: list[tuple[int, int]]
) -> None:
    seen: list[tuple[int, ...]] = []
    hook = policy.model.model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    try:
        floor = measure_noise_floor(policy, uneven_rollouts(), LENGTHS, temperature=1.0, tokens=tokens)
    finally:
        hook.remove()
    assert seen == shapes
    assert 0.0 <= floor < 1e-9
    largest, longest = noise_sizes(uneven_rollouts(), LENGTHS, tokens=tokens)
    assert (largest, longest) == (max(rows * width for rows, width in shapes), 15)


def test_two_ways_of_scoring_that_differ_are_told_whatever_the_budget(policy: LanguageModel) -> None:
    """A model that looks at what is beside a sequence, or behind it, has a floor above 0."""
    layer = policy.model.model.layers[0]
    hook = layer.register_forward_hook(lambda _, __, output: output * (1.0 + 0.01 * output.shape[0] * output.shape[1]))
    try:
        floors = [
            measure_noise_floor(policy, uneven_rollouts(), LENGTHS, temperature=1.0, tokens=tokens)
            for tokens in (1, 30, 60)
        ]
    finally:
        hook.remove()
    assert min(floors) > 1e-8
