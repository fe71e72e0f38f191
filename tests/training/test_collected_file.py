"""Collected rollouts come back from a checkpoint equal in every field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from collected_factory import COLLECTED, ROLLOUTS, request

from dgpo_cli.algorithm import Rewards
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.collected_file import DrawnOtherwise, load_collected, save_collected
from dgpo_cli.types import SampleRequest


def same(left: Collected, right: Collected) -> None:
    for field in fields(Collected):
        ours, theirs = getattr(left, field.name), getattr(right, field.name)
        if isinstance(ours, Rewards):
            assert torch.equal(ours.raw, theirs.raw)
            assert torch.equal(ours.final, theirs.final)
            ours, theirs = (ours.group_size, ours.correct), (theirs.group_size, theirs.correct)
        assert ours == theirs, field.name


def test_every_field_comes_back(tmp_path: Path) -> None:
    save_collected(COLLECTED, 7, tmp_path)
    loaded = load_collected(tmp_path, request, group_size=2)
    assert loaded is not None
    same(COLLECTED, loaded)


def test_what_is_left_out_stays_left_out(tmp_path: Path) -> None:
    plain = replace(COLLECTED, scores_given=(), rollouts=[replace(one, logprobs=None) for one in ROLLOUTS])
    save_collected(plain, 7, tmp_path)
    loaded = load_collected(tmp_path, request, group_size=2)
    assert loaded is not None
    same(plain, loaded)


def test_a_checkpoint_without_rollouts_says_so(tmp_path: Path) -> None:
    assert load_collected(tmp_path, request, group_size=2) is None


def other_seed(step: int, draw: int, sample: int) -> SampleRequest:
    return replace(request(step, draw, sample), seed=5)


def other_prompt(step: int, draw: int, sample: int) -> SampleRequest:
    asked = request(step, draw, sample)
    return replace(asked, prompt=replace(asked.prompt, token_ids=(8, draw)))


def other_gold(step: int, draw: int, sample: int) -> SampleRequest:
    asked = request(step, draw, sample)
    return replace(asked, prompt=replace(asked.prompt, problem=replace(asked.prompt.problem, gold="2")))


@pytest.mark.parametrize(
    ("asking", "group_size"),
    [(other_seed, 2), (other_prompt, 2), (other_gold, 2), (request, 4)],
    ids=["seed", "prompt", "gold", "group size"],
)
def test_rollouts_that_this_run_would_not_ask_for_are_not_taken(
    asking: Callable[[int, int, int], SampleRequest], group_size: int, tmp_path: Path
) -> None:
    save_collected(COLLECTED, 7, tmp_path)
    with pytest.raises(DrawnOtherwise):
        load_collected(tmp_path, asking, group_size=group_size)
