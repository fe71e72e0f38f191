"""What a step's metrics say to a person, each once."""

from __future__ import annotations

from typing import Any

from dgpo_cli.training.advice import UNIFORM_STEPS, follow, why_nothing_was_learned
from dgpo_cli.training.checkpoint import RunState
from dgpo_cli.training.metrics import KEYS


def row(**values: Any) -> dict[str, Any]:
    return dict.fromkeys(KEYS) | {"optim/updates": 1, "credit/ess": 0.9} | values


def test_uniform_credit_is_said_once_after_twenty_steps() -> None:
    state = RunState()
    said = [follow(row(**{"credit/ess": 0.9999}), state, gates=True) for _ in range(UNIFORM_STEPS + 5)]
    assert [bool(texts) for texts in said] == [False] * (UNIFORM_STEPS - 1) + [True] + [False] * 5
    assert "gating.temperature" in said[UNIFORM_STEPS - 1][0]


def test_a_step_with_spread_starts_the_count_again() -> None:
    state = RunState()
    for step in range(2 * UNIFORM_STEPS - 1):
        ess = 0.5 if step == UNIFORM_STEPS - 1 else 0.9999
        assert follow(row(**{"credit/ess": ess}), state, gates=True) == []


def test_uniform_gating_is_never_called_uniform() -> None:
    state = RunState()
    assert not any(follow(row(**{"credit/ess": 1.0}), state, gates=False) for _ in range(40))


def test_truncation_and_hopeless_groups_name_the_key_to_change() -> None:
    texts = follow(row(**{"completion/truncated": 0.61, "groups/all_wrong": 0.92}), RunState(), gates=True)
    assert len(texts) == 2
    assert "61%" in texts[0]
    assert "rollout.max_completion_tokens" in texts[0]
    assert "92%" in texts[1]


def test_the_reason_of_a_step_without_update() -> None:
    nothing = {"optim/updates": 0, "optim/skipped": 1, "grad_norm": 0.0}
    wrong = why_nothing_was_learned(row(**nothing, **{"groups/all_wrong": 1.0, "groups/all_correct": 0.0}))
    mixed = why_nothing_was_learned(row(**nothing, **{"groups/all_wrong": 0.25, "groups/all_correct": 0.75}))
    assert wrong is not None
    assert "all wrong" in wrong
    assert mixed is not None
    assert "all right (75%) or all wrong" in mixed
    broken = why_nothing_was_learned(row(**nothing | {"grad_norm": float("nan")}))
    assert broken is not None
    assert "not finite" in broken
    assert why_nothing_was_learned(row()) is None
