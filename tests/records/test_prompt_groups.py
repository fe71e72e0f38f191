"""Which records are a group, and on which side of it each stands."""

from __future__ import annotations

from typing import Any

import pytest
from record_factory import made_up

from dgpo_cli.records.prompt_groups import group_accuracy, group_numbers, rows_by_group, side


def record(prompt: str, sample: int) -> dict[str, Any]:
    return {"prompt_id": prompt, "prompt": f"text of {prompt}", "sample": sample}


def test_rollouts_of_a_prompt_are_a_group_in_whatever_order_they_stand() -> None:
    records = [record("a", 0), record("b", 0), record("a", 1), record("b", 1)]
    assert group_numbers(records) == [0, 1, 0, 1]
    assert rows_by_group(records) == [[0, 2], [1, 3]]


def test_a_sample_that_comes_again_begins_another_group() -> None:
    assert group_numbers([record("a", 0), record("a", 1), record("a", 0), record("a", 1)]) == [0, 0, 1, 1]


def test_one_id_with_two_texts_is_two_prompts() -> None:
    other = record("a", 1) | {"prompt": "another text"}
    assert group_numbers([record("a", 0), other]) == [0, 1]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"correct": True, "advantage": -1.0}, "right"),
        ({"correct": False, "advantage": 1.0}, "wrong"),
        ({"correct": None, "advantage": 0.5}, "above"),
        ({"advantage": 0.0}, "below"),
        ({}, "alone"),
    ],
)
def test_a_float_reward_is_compared_with_its_group_as_nothing_says_right_or_wrong(
    fields: dict[str, Any], expected: str
) -> None:
    assert side(fields) == expected


def test_the_accuracy_of_a_group_is_that_of_its_rollouts() -> None:
    records = made_up(4, 1, group_size=2)
    for record, correct in zip(records, (True, False, False, False), strict=True):
        record["correct"] = correct
    found = group_accuracy(records)
    assert found is not None
    assert found.tolist() == [0.5, 0.5, 0.0, 0.0]
    assert group_accuracy([records[0], records[1] | {"correct": None}]) is None
