"""What a reward function may return; `test_function` has the same through a process."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from dgpo_cli.config.reward_names import TAKEN
from dgpo_cli.rewards.user_function import call, reward_in
from dgpo_cli.training.metrics import KEYS


def test_parts_stand_beside_score_and_correct() -> None:
    returned = {"score": 0.75, "correct": True, "format": 1, "length": -0.25}
    assert reward_in(returned) == {"score": 0.75, "correct": True, "parts": {"format": 1.0, "length": -0.25}}


def test_a_dict_needs_a_score_alone() -> None:
    assert reward_in({"score": 2}) == {"score": 2.0, "correct": None}


def test_parts_may_stand_in_a_dict_of_their_own() -> None:
    apart = reward_in({"score": 1, "correct": True, "parts": {"right": True, "brief": 0.5}})
    assert apart == reward_in({"score": 1, "correct": True, "right": True, "brief": 0.5})
    assert apart["parts"] == {"right": 1.0, "brief": 0.5}
    assert "a part called 'mean'" in reward_in({"score": 1.0, "parts": {"mean": 0.5}})["invalid"]


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    returned = {"score": np.float32(0.5), "correct": np.bool_(False), "style": torch.tensor(0.25)}
    assert reward_in(returned) == {"score": 0.5, "correct": False, "parts": {"style": 0.25}}


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ({"correct": True}, "a dict without a score: dict {'correct': True}"),
        ({"score": "1"}, "a score and a correct that cannot be used"),
        ({"score": 1.0, "correct": "yes"}, "a score and a correct that cannot be used"),
        ({"score": 1.0, "format": "good"}, "a part 'format' that is no finite number: str 'good'"),
        ({"score": 1.0, "format": None}, "a part 'format' that is no finite number: NoneType None"),
        ({"score": 1.0, "format": float("nan")}, "a part 'format' that is no finite number: float nan"),
        ({"score": 1.0, "mean": 0.5}, "a part called 'mean', which is the name of another metric, reward/mean"),
        ({"score": 1.0, "a/b": 0.5}, "a part called 'a/b'; its name can hold letters, digits and _"),
        ({"score": 1.0, 3: 0.5}, "a part called 3; its name can hold letters, digits and _"),
    ],
)
def test_a_dict_that_is_no_reward_is_refused(returned: dict[Any, Any], said: str) -> None:
    assert said in reward_in(returned)["invalid"]


def test_no_part_can_be_called_as_a_metric_is() -> None:
    assert {name.removeprefix("reward/") for name in KEYS if name.startswith("reward/")} == TAKEN


@pytest.mark.parametrize("returned", [True, np.bool_(True), torch.tensor(True)])
def test_true_is_a_right_answer(returned: Any) -> None:
    assert reward_in(returned) == {"score": 1.0, "correct": True}


@pytest.mark.parametrize(
    "returned", [[1.0, None, False], (1, None, np.bool_(False)), [(1.0, None), None, (0.0, False)]], ids=repr
)
def test_a_batch_returns_one_reward_a_completion_and_none_for_no_reward(returned: Any) -> None:
    replies = call(lambda completions: returned, {"count": 3, "named": {"completions": ["a", "b", "c"]}})["replies"]
    expected = [{"score": 1.0, "correct": None}, {"score": None}, {"score": 0.0, "correct": False}]
    assert replies == expected


@pytest.mark.parametrize("returned", [np.array([0.5, 1.0]), torch.tensor([0.5, 1.0])], ids=["numpy", "torch"])
def test_a_batch_may_return_an_array(returned: Any) -> None:
    replies = call(lambda completions: returned, {"count": 2, "named": {"completions": ["a", "b"]}})["replies"]
    assert [reply["score"] for reply in replies] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1.0], "1 rewards for 2 completions"),
        (0.5, "float 0.5 in place of a list with one reward for each completion"),
        ({"score": 1.0}, "dict {'score': 1.0} in place of a list"),
    ],
)
def test_a_batch_of_another_length_or_none_at_all_is_refused(returned: Any, said: str) -> None:
    reply = call(lambda completions: returned, {"count": 2, "named": {"completions": ["a", "b"]}})
    assert reply["invalid"].startswith(said)


def test_a_coroutine_is_waited_for_in_the_same_loop_each_time() -> None:
    loops = []

    async def score(completion: str) -> float:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return float(len(completion))

    replies = [call(score, {"places": [], "named": {"completion": text}}) for text in ("a", "bb")]
    assert [reply["score"] for reply in replies] == [1.0, 2.0]
    assert loops[0] is loops[1]


def test_what_trainers_pass_to_log_goes_nowhere() -> None:
    def score(completions: list[str], log_metric: Any, log_extra: Any = None, trainer_state: Any = 1) -> list[float]:
        log_metric("a", 1.0)
        log_extra("b", [1])
        return [float(trainer_state is None)]

    reply = call(score, {"count": 1, "named": {"completions": ["a"]}})
    assert reply["replies"] == [{"score": 1.0, "correct": None}]
