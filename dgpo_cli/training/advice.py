"""Causes, not only numbers: what a step's metrics mean for the person who watches, each said once in a run.

TABLE holds them, one row a cause: when it applies, for how many steps in a row before it is said, what it says, and
which keys change it. What was said, and how long each has applied, lies in the run's state, so a resumed run does not
repeat itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgpo_cli.training.checkpoint import RunState

UNIFORM_ESS = 0.999
SIDES = ("correct", "wrong")
NO_UPDATE = "no_update"  # in the run's streaks, beside the names of TABLE
Row = dict[str, Any]


@dataclass(frozen=True)
class Advice:
    """`text(row)` is the cause and `keys` what to change, once `when(row, state)` held for `steps` steps in a row."""

    name: str
    when: Callable[[Row, RunState], bool]
    text: Callable[[Row], str]
    keys: str
    steps: int = 1
    gated_only: bool = False  # says something of token-level credit


def _value(row: Row, key: str) -> float:
    """0 for what is absent."""
    return float(row.get(key) or 0.0)


def _share_of_samples(row: Row, key: str) -> float:
    """A count of samples as a share of those that were drawn."""
    return _value(row, key) / max(1.0, _value(row, "samples/generated"))


def _ungraded(row: Row) -> float:
    """Share of samples whose answer made the grader fail, time-outs aside."""
    return _share_of_samples(row, "reward/errors") - _share_of_samples(row, "reward/timeouts")


def _is_flat(row: Row) -> bool:
    """Whether nearly every group has equal rewards, so that it teaches nothing."""
    return _value(row, "groups/no_spread") > 0.9


def _collapsed(row: Row, state: RunState) -> bool:
    entropy = row.get("entropy/mean")
    return entropy is not None and state.first_entropy is not None and entropy < 0.1 * state.first_entropy


def _direction(row: Row) -> str:
    """How far credit turns the gradient: an effective sample size near 1 does not say so by itself."""
    cosine = row.get("credit/grad_cos")
    if cosine is None:
        return "how far that turns the gradient was not measured (optim.grad_cos_every)"
    return f"the cosine of its gradient with that of uniform credit is {cosine:.5f}"


TABLE = (
    Advice(
        "uniform_credit",
        lambda row, state: _value(row, "credit/ess") > UNIFORM_ESS,
        lambda row: (
            f"credit has been very close to uniform for 20 steps (credit/ess {row['credit/ess']:.5f}): every token "
            f"earns nearly the same, and {_direction(row)}"
        ),
        "a smaller gating.temperature or gating=calibrated",
        steps=20,
        gated_only=True,
    ),
    Advice(
        "truncated",
        lambda row, state: _value(row, "completion/truncated") > 0.5,
        lambda row: (
            f"{row['completion/truncated']:.0%} of completions were truncated: cut at the limit, they are graded "
            "without their end"
        ),
        "a larger rollout.max_completion_tokens",
    ),
    Advice(
        "no_answer",
        lambda row, state: _share_of_samples(row, "reward/no_answer") > 0.5,
        lambda row: (
            f"{_share_of_samples(row, 'reward/no_answer'):.0%} of completions hold no answer that the grader finds: "
            "the prompt may not ask for its form"
        ),
        "data.template, model.chat_template or another reward=; more rollout.max_completion_tokens where they are cut",
    ),
    Advice(
        "all_wrong",
        lambda row, state: _is_flat(row) and _value(row, "groups/all_wrong") > 0.9,
        lambda row: (
            f"{row['groups/no_spread']:.0%} of groups had equal rewards, {row['groups/all_wrong']:.0%} were all wrong: "
            "nothing to learn from them"
        ),
        "easier data, a larger rollout.group_size or more rollout.max_completion_tokens",
    ),
    Advice(
        "too_easy",
        lambda row, state: _is_flat(row) and _value(row, "accuracy") >= 1.0,
        lambda row: "every completion was right for 3 steps: the data are too easy to learn more from",
        "harder data, or fewer steps",
        steps=3,
    ),
    Advice(
        "all_right",
        lambda row, state: _is_flat(row) and _value(row, "groups/all_correct") > 0.9 and _value(row, "accuracy") < 1.0,
        lambda row: (
            f"{row['groups/no_spread']:.0%} of groups had equal rewards, {row['groups/all_correct']:.0%} were all "
            "right: nothing to learn from them"
        ),
        "harder data, or algo.dynamic_sampling.enabled=true",
    ),
    Advice(
        "no_spread",
        lambda row, state: _is_flat(row) and max(_value(row, f"groups/all_{side}") for side in SIDES) <= 0.9,
        lambda row: f"{row['groups/no_spread']:.0%} of groups had equal rewards: nothing to learn from them",
        "a reward that tells a prompt's samples apart, data of another difficulty, a larger rollout.group_size or "
        "algo.dynamic_sampling.enabled=true",
    ),
    Advice(
        "entropy_collapse",
        _collapsed,
        lambda row: (
            f"entropy is falling to zero ({row['entropy/mean']:.2g} nats, less than a tenth of the first step's): "
            "samples of a group become alike, which ends learning"
        ),
        "a smaller optim.lr, algo.clip_high above algo.clip_low (0.28), or algo.kl_coef above 0",
        steps=3,
    ),
    Advice(
        "reward_timeouts",
        lambda row, state: _value(row, "reward/timeouts") > 0,
        lambda row: f"{row['reward/timeouts']} gradings ran out of time: each counts as wrong",
        "a larger reward.timeout_seconds; reward.timeout_score for a function's",
    ),
    Advice(
        "reward_errors",
        lambda row, state: _ungraded(row) > 0.05,
        lambda row: f"{_ungraded(row):.0%} of completions could not be graded and score as wrong",
        "another reward=, or a data.template that asks for a plainer form of answer",
    ),
    Advice(
        "old_logprobs",
        lambda row, state: _value(row, "ratio/first_minibatch_error") > 0.01,
        lambda row: (
            f"the first minibatch began with ratios off by {row['ratio/first_minibatch_error']:.3f}, where they should "
            "be 1: scoring and training disagree"
        ),
        "model.dtype=float32, or a model without dropout",
    ),
    Advice(
        "clipped",
        lambda row, state: _value(row, "ratio/clip_low") + _value(row, "ratio/clip_high") > 0.3,
        lambda row: (
            f"{_value(row, 'ratio/clip_low') + _value(row, 'ratio/clip_high'):.0%} of tokens were clipped for 3 steps: "
            "the policy leaves its own samples behind"
        ),
        "a smaller optim.lr, fewer optim.epochs or optim.minibatches",
        steps=3,
    ),
    Advice(
        "skipped",
        lambda row, state: not row.get("optim/updates"),
        lambda row: "5 steps in a row changed no weight: nothing was learned in them",
        "data of another difficulty, a larger rollout.group_size or algo.dynamic_sampling.enabled=true",
        steps=5,
    ),
    Advice(
        "weights_stand_still",
        lambda row, state: bool(row.get("optim/updates")) and _value(row, "optim/changed_fraction") < 0.01,
        lambda row: (
            f"only {_value(row, 'optim/changed_fraction'):.2%} of the weights changed in each of 5 steps: updates "
            "smaller than the weights' precision are lost"
        ),
        "a larger optim.lr or model.dtype=float32",
        steps=5,
    ),
)


def follow(row: Row, state: RunState, *, gates: bool) -> list[str]:
    """Texts that apply for the first time in this run; `state` remembers those, and how long each held."""
    if state.first_entropy is None:
        state.first_entropy = row.get("entropy/mean")
    if row.get("credit/grad_cos") is not None:
        state.grad_cos = row["credit/grad_cos"]
    row = row | {"credit/grad_cos": state.grad_cos}  # it is measured in some steps alone
    said: list[str] = []
    for advice in TABLE:
        if advice.name in state.warned or (advice.gated_only and not gates):
            continue
        state.streaks[advice.name] = state.streaks.get(advice.name, 0) + 1 if advice.when(row, state) else 0
        if state.streaks[advice.name] >= advice.steps:
            state.warned.append(advice.name)
            del state.streaks[advice.name]
            said.append(f"{advice.text(row)}; what changes it: {advice.keys}")
    return said


def why_nothing_was_learned(row: Row, state: RunState) -> str | None:
    """The reason of a step without any update, at the first of a streak of such steps; else None.

    The streak is counted in `state.streaks`, so a resumed run knows whether its reason was said.
    """
    reason = None if row["optim/updates"] else _reason_of_no_update(row)
    streak = state.streaks.get(NO_UPDATE, 0) + 1 if reason else 0
    state.streaks[NO_UPDATE] = streak
    return reason if streak == 1 else None


def _reason_of_no_update(row: Row) -> str:
    if row["grad_norm"] is None or not math.isfinite(row["grad_norm"]):
        return "nothing was learned in this step: its gradient was not finite"
    if row["samples/trained"] == 0:
        return f"nothing to learn in this step: dynamic sampling kept no group{_answers(row)}"
    if _value(row, "groups/no_spread") < 1.0:
        return (
            "nothing to learn in this step: no token that counts carries an advantage (algo.mask_truncated leaves out "
            "samples that were cut, algo.sign those whose advantage has the other sign)"
        )
    return f"nothing to learn in this step: every group had equal rewards{_answers(row)}, so every advantage is 0"


def _answers(row: Row) -> str:
    """What the answers of groups without signal were, if each group was all right or all wrong."""
    right, wrong = _value(row, "groups/all_correct"), _value(row, "groups/all_wrong")
    if right + wrong < 1.0 - 1e-9:
        return ""
    if right and wrong:
        return f" ({right:.0%} all right, {wrong:.0%} all wrong)"
    return " (all right)" if right else " (all wrong)"
