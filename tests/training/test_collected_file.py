"""Collected rollouts come back from a checkpoint equal in every field."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch
from collected_factory import COLLECTED, ROLLOUTS, request

from dgpo_cli.algorithm import Rewards
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.collected_file import load_collected, save_collected


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
    loaded = load_collected(tmp_path, request)
    assert loaded is not None
    same(COLLECTED, loaded)


def test_what_is_left_out_stays_left_out(tmp_path: Path) -> None:
    plain = replace(COLLECTED, scores_given=(), rollouts=[replace(one, logprobs=None) for one in ROLLOUTS])
    save_collected(plain, 7, tmp_path)
    loaded = load_collected(tmp_path, request)
    assert loaded is not None
    same(plain, loaded)


def test_a_checkpoint_without_rollouts_says_so(tmp_path: Path) -> None:
    assert load_collected(tmp_path, request) is None
