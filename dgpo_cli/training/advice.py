"""Causes, not only numbers: what a step's metrics mean for the person who watches, each said once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgpo_cli.training.checkpoint import RunState

UNIFORM_ESS = 0.999
UNIFORM_STEPS = 20


@dataclass(frozen=True)
class Advice:
    """`when(row, state)` tells whether `text(row)` applies."""

    name: str
    when: Callable[[dict[str, Any], RunState], bool]
    text: Callable[[dict[str, Any]], str]


def _share(row: dict[str, Any], key: str) -> float:
    return float(row[key] or 0.0)


TABLE = (
    Advice(
        "uniform_credit",
        lambda row, state: state.uniform_streak >= UNIFORM_STEPS,
        lambda row: (
            f"credit has been indistinguishable from uniform for {UNIFORM_STEPS} steps (credit/ess "
            f"{row['credit/ess']:.5f}): a smaller gating.temperature or gating=calibrated changes that"
        ),
    ),
    Advice(
        "truncated",
        lambda row, state: _share(row, "completion/truncated") > 0.5,
        lambda row: (
            f"{row['completion/truncated']:.0%} of completions were cut at the limit: a larger "
            "rollout.max_completion_tokens gives them room"
        ),
    ),
    Advice(
        "all_wrong",
        lambda row, state: _share(row, "groups/all_wrong") > 0.9,
        lambda row: (
            f"{row['groups/all_wrong']:.0%} of groups were all wrong, which teaches nothing: easier data, a larger "
            "rollout.group_size or more rollout.max_completion_tokens"
        ),
    ),
    Advice(
        "all_right",
        lambda row, state: _share(row, "groups/all_correct") > 0.9,
        lambda row: (
            f"{row['groups/all_correct']:.0%} of groups were all right, which teaches nothing: harder data, or "
            "algo.dynamic_sampling.enabled=true"
        ),
    ),
    Advice(
        "reward_timeouts",
        lambda row, state: _share(row, "reward/timeouts") > 0,
        lambda row: (
            f"{row['reward/timeouts']} gradings ran out of time and score as wrong: reward.timeout_seconds gives "
            "them more"
        ),
    ),
)


def follow(row: dict[str, Any], state: RunState, *, gates: bool) -> list[str]:
    """Texts that apply for the first time in this run; `state` remembers which were said."""
    ess = row["credit/ess"]
    if gates and ess is not None:
        state.uniform_streak = state.uniform_streak + 1 if ess > UNIFORM_ESS else 0
    said: list[str] = []
    for advice in TABLE:
        if advice.name not in state.warned and advice.when(row, state):
            state.warned.append(advice.name)
            said.append(advice.text(row))
    return said


def why_nothing_was_learned(row: dict[str, Any]) -> str | None:
    """The reason of a step without any update, or None."""
    if row["optim/updates"]:
        return None
    if row["grad_norm"] is None or not math.isfinite(row["grad_norm"]):
        return "nothing was learned in this step: its gradient was not finite"
    right, wrong = _share(row, "groups/all_correct"), _share(row, "groups/all_wrong")
    if right + wrong >= 1.0:
        what = "all right" if wrong == 0 else "all wrong" if right == 0 else f"all right ({right:.0%}) or all wrong"
        return f"nothing to learn in this step: every group was {what}, so every advantage is 0"
    return "nothing to learn in this step: every group had equal rewards, so every advantage is 0"
