"""What a stored record must hold: each thing that is wrong is one line with the file, the line and the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from record_factory import made_up, write_rollouts

from dgpo_cli.errors import DataError
from dgpo_cli.records.stored_rollouts import StoredRollouts, read_stored

NAN, INFINITY = float("nan"), float("inf")


def read(folder: Path, field: str, value: Any) -> StoredRollouts:
    """Two records of three tokens, the second with this value."""
    records = made_up(2, 3)
    records[1][field] = value
    return read_stored(write_rollouts(folder / "rollouts.jsonl", records))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("reward", NAN, "expected a finite number or null, found NaN"),
        ("advantage", -INFINITY, "expected a finite number or null, found -Infinity"),
        ("advantage", 1e39, "expected a finite number or null, found 1e+39"),  # more than float32 holds
        ("reward", 10**400, "expected a finite number or null, found 1000"),
        ("prompt", ["a"], "expected a text or null, found 1 values"),
        ("prompt_id", {"a": 1}, 'expected a text or a number or null, found {"a": 1}'),
        ("sample", [0], "expected an integer or null, found 1 values"),
        ("correct", NAN, "expected true or false or null, found NaN"),
        ("reward_parts", 0.5, "expected an object of finite numbers or null, found 0.5"),
        ("reward_parts", {"level": "A"}, 'an object of finite numbers or null, found {"level": "A"}'),
        ("reward_parts", {"level": NAN}, 'an object of finite numbers or null, found {"level": NaN}'),
        ("finish_reason", NAN, "expected a text or null, found NaN"),
        ("vocabulary_size", 1, "expected an integer of at least 2 or null, found 1"),
        ("noise_floor", -1e-9, "expected a finite number of at least 0 or null, found -1e-09"),
        ("control_seed", -5, "expected an integer from 0 to below 2^128 or null, found -5"),
        ("control_seed", 2**128, "expected an integer from 0 to below 2^128 or null, found 340"),
        ("token_ids", 5, "expected an integer for each of the 3 tokens, found 5"),
        ("token_ids", [1, 2.5, 3], "expected an integer or null for each of the 3 tokens, found 2.5 for token 1"),
        (
            "entropy",
            [0.1, NAN, 0.1],
            "a finite number or null for each of the 3 counted of 3 tokens, found NaN for tok",
        ),
        ("hellinger", [0.1, 0.1, 1.5], "a number from 0 to 1 or null for each of the 3 counted of 3 tokens, found 1.5"),
        ("ref_logprobs", [-0.1, -0.1], "a finite number for each of the 3 counted of 3 tokens, found 2 values"),
        ("logprobs", [-0.1] * 4, "a finite number for each of the 4 counted of 3 tokens, found 4 values"),
    ],
)
def test_what_is_no_such_value_is_named(tmp_path: Path, field: str, value: Any, said: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, field, value)
    message = error.value.problems[0].message
    assert f"rollouts.jsonl line 2: {field}: " in message
    assert said in message


def test_parts_of_a_reward_are_numbers_or_unknown(tmp_path: Path) -> None:
    stored = read(tmp_path, "reward_parts", {"level": 2, "length": -0.5, "depth": None})
    assert len(stored.records) == 2
