"""What a reward function may return; `test_function` has the same through a process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dgpo_cli.rewards.user_function import TAKEN, reward_in
from dgpo_cli.training.metrics import KEYS


def test_parts_stand_beside_score_and_correct() -> None:
    returned = {"score": 0.75, "correct": True, "format": 1, "length": -0.25}
    assert reward_in(returned) == {"score": 0.75, "correct": True, "parts": {"format": 1.0, "length": -0.25}}


def test_a_dict_needs_a_score_alone() -> None:
    assert reward_in({"score": 2}) == {"score": 2.0, "correct": None}


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
