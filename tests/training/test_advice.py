"""What a step's metrics say to a person, each once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from dgpo_cli.config.keys import keys
from dgpo_cli.training.advice import TABLE, follow, why_nothing_was_learned
from dgpo_cli.training.checkpoint import RunState
from dgpo_cli.training.metrics import KEYS

HEALTHY = {
    "optim/updates": 1,
    "optim/changed_fraction": 1.0,
    "credit/ess": 0.9,
    "accuracy": 0.5,
    "entropy/mean": 0.5,
    "samples/generated": 100,
}


def row(**values: Any) -> dict[str, Any]:
    return dict.fromkeys(KEYS) | HEALTHY | {key.replace("__", "/"): value for key, value in values.items()}


def said(rows: list[dict[str, Any]], *, gates: bool = True, state: RunState | None = None) -> list[tuple[int, str]]:
    """(step, text) of all that is said."""
    state = state or RunState()
    return [(step, text) for step, one in enumerate(rows, 1) for text in follow(one, state, gates=gates)]


def test_a_healthy_run_is_told_nothing() -> None:
    assert said([row()] * 50) == []


# What is wrong, at which step of ten (or thirty) it is said, and words of it: the share and the key to change.
CASES: list[tuple[dict[str, Any], int, list[str]]] = [
    ({"credit__ess": 0.9999}, 20, ["very close to uniform", "gating.temperature", "was not measured"]),
    ({"completion__truncated": 0.61}, 1, ["61% of completions were truncated", "rollout.max_completion_tokens"]),
    ({"reward__no_answer": 61}, 1, ["61% of completions hold no answer", "data.template"]),
    (
        {"groups__no_spread": 0.93, "groups__all_wrong": 0.92},
        1,
        ["93% of groups had equal rewards, 92% were all wrong: nothing to learn", "rollout.group_size"],
    ),
    (
        {"groups__no_spread": 0.95, "groups__all_correct": 0.94},
        1,
        ["95% of groups had equal rewards, 94% were all right", "algo.dynamic_sampling.enabled=true"],
    ),
    ({"groups__no_spread": 1.0}, 1, ["100% of groups had equal rewards: nothing", "a reward that tells"]),
    ({"accuracy": 1.0, "groups__no_spread": 1.0, "groups__all_correct": 1.0}, 3, ["too easy"]),
    ({"reward__timeouts": 3, "reward__errors": 8}, 1, ["3 gradings ran out of time", "reward.timeout_seconds"]),
    ({"reward__timeouts": 0, "reward__errors": 7}, 1, ["7% of completions could not be graded", "reward="]),
    ({"ratio__first_minibatch_error": 0.05}, 1, ["off by 0.050", "model.dtype=float32"]),
    ({"ratio__clip_low": 0.2, "ratio__clip_high": 0.25}, 3, ["45% of tokens were clipped", "optim.lr"]),
    ({"optim__updates": 0}, 5, ["changed no weight", "algo.dynamic_sampling.enabled=true"]),
    ({"optim__changed_fraction": 0.0003}, 5, ["only 0.03% of the weights changed", "model.dtype=float32"]),
]


@pytest.mark.parametrize(("values", "step", "words"), CASES)
def test_a_cause_is_said_once_with_its_figure_and_the_key_to_change(
    values: dict[str, Any], step: int, words: list[str]
) -> None:
    (only,) = said([row(**values)] * 30)
    assert only[0] == step
    for word in words:
        assert word in only[1]


@pytest.mark.parametrize(
    "values", [{"groups__all_wrong": 1.0}, {"groups__all_correct": 1.0}, {"accuracy": 1.0, "groups__all_correct": 1.0}]
)
def test_groups_that_have_spread_are_told_nothing_whatever_their_answers(values: dict[str, Any]) -> None:
    assert said([row(groups__no_spread=0.0, **values)] * 30) == []


def test_completions_that_are_cut_are_not_said_to_be_wrong() -> None:
    ((_, text),) = said([row(completion__truncated=1.0)])
    assert "wrong" not in text


def test_falling_entropy_is_measured_from_the_first_step() -> None:
    falling = [row(**{"entropy/mean": value}) for value in (0.4, 0.1, 0.05, 0.03, 0.02, 0.01)]
    ((step, text),) = said(falling)
    assert step == 6  # below 0.04 from step 4 on, for three steps
    assert "entropy is falling to zero (0.01 nats" in text
    assert said([row(**{"entropy/mean": 0.01})] * 9) == []  # it began there


def test_every_cause_of_the_table_is_tested() -> None:
    state = RunState()
    for values, _, _ in CASES:
        said([row(**values)] * 30, state=state)
    said([row()] + [row(**{"entropy/mean": 0.001})] * 3, state=state)
    assert sorted(state.warned) == sorted(advice.name for advice in TABLE)


def test_a_step_without_it_starts_the_count_again() -> None:
    uniform, spread = row(**{"credit/ess": 0.9999}), row()
    assert said([uniform] * 19 + [spread] + [uniform] * 19) == []
    assert [step for step, _ in said([uniform] * 19 + [spread] + [uniform] * 20)] == [40]


def test_uniform_gating_is_never_called_uniform() -> None:
    assert said([row(**{"credit/ess": 1.0})] * 40, gates=False) == []


def test_a_resumed_run_goes_on_counting_and_does_not_repeat_itself() -> None:
    rows = [row(**{"credit/ess": 0.9999, "completion/truncated": 0.9})] * 10
    before = RunState()
    assert len(said(rows, state=before)) == 1
    after = RunState(**asdict(before))
    assert [step for step, _ in said(rows, state=after)] == [10]


def test_a_row_without_anything_is_no_reason_to_fail() -> None:
    follow(dict.fromkeys(KEYS), RunState(), gates=True)


def test_the_keys_that_are_named_exist() -> None:
    import re

    groups = "|".join(("optim", "algo", "rollout", "reward", "model", "data", "gating"))
    named = {name for advice in TABLE for name in re.findall(rf"\b(?:{groups})\.[a-z_.]+[a-z]", advice.keys)}
    assert len(named) > 10
    assert named <= keys("train").keys()


NOTHING = {"optim/updates": 0, "optim/skipped": 1, "grad_norm": 0.0}
ALL_WRONG = {**NOTHING, "groups/no_spread": 1.0, "groups/all_wrong": 1.0, "groups/all_correct": 0.0}


def test_the_reason_of_a_step_without_update() -> None:
    def reason(**values: Any) -> str:
        return why_nothing_was_learned(row(**values), RunState()) or ""

    assert "every group had equal rewards (all wrong)" in reason(**ALL_WRONG)
    mixed = {**ALL_WRONG, "groups/all_wrong": 0.25, "groups/all_correct": 0.75}
    assert "every group had equal rewards (75% all right, 25% all wrong)" in reason(**mixed)
    assert "every group had equal rewards, so" in reason(**NOTHING | {"groups/no_spread": 1.0})
    dropped = {**NOTHING, "groups/no_spread": 0.5, "samples/trained": 0}
    assert "dynamic sampling kept no group" in reason(**dropped)
    assert "algo.mask_truncated" in reason(**NOTHING | {"groups/no_spread": 0.5})
    assert "not finite" in reason(**NOTHING | {"grad_norm": float("nan")})
    assert reason() == ""


def test_the_reason_is_said_at_the_first_step_of_a_streak_and_not_again_after_a_resume() -> None:
    def told(count: int, values: dict[str, Any]) -> list[bool]:
        return [why_nothing_was_learned(row(**values), state) is not None for _ in range(count)]

    state = RunState()
    assert told(8, ALL_WRONG) == [True] + [False] * 7
    state = RunState(**asdict(state))
    assert told(2, ALL_WRONG) == [False, False]
    assert told(1, {}) == [False]
    assert told(2, ALL_WRONG) == [True, False]


def test_uniform_credit_is_said_with_the_last_cosine_that_was_measured() -> None:
    rows = [row(credit__ess=0.9999, **({"credit__grad_cos": 0.98765} if step == 4 else {})) for step in range(20)]
    [(step, text)] = said(rows)
    assert step == 20
    assert "the cosine of its gradient with that of uniform credit is 0.98765" in text
