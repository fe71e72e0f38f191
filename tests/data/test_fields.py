"""Where a key finds its value in a row."""

from __future__ import annotations

from typing import Any

import pytest

from dgpo_cli.data.fields import columns, field, has_field, nearest

ROW: dict[str, Any] = {"a": "", "b": {"c": 1, "d.e": 2}, "f.g": {"h": 3}}


@pytest.mark.parametrize(
    ("keys", "value"),
    [("a", None), ("a|b.c", 1), ("x|b.c", 1), ("b.d.e", 2), ("f.g.h", 3), (" x | f.g.h ", 3)],
)
def test_the_first_key_that_holds_something_is_taken_at_any_depth(keys: str, value: Any) -> None:
    assert has_field(ROW, keys)
    assert field(ROW, keys) == value


def test_a_key_that_is_not_there_is_answered_with_the_columns() -> None:
    assert columns(ROW) == ["a", "b", "b.c", "b.d.e", "f.g", "f.g.h"]
    assert not has_field(ROW, "x|b.x")
    with pytest.raises(ValueError, match=r"no such column in this row; it has a, b, b\.c"):
        field(ROW, "x|b.x")


def test_a_key_that_means_two_values_is_refused_and_two_equal_ones_are_one() -> None:
    with pytest.raises(ValueError, match="expected one value"):
        field({"a.b": 1, "a": {"b": 2}}, "a.b")
    assert field({"a.b": 1, "a": {"b": 1}}, "a.b") == 1


def test_the_nearest_column_is_found_in_other_letters() -> None:
    assert nearest(["question"], ["Question", "Answer"]) == "Question"
    assert nearest(["quux"], ["Question"]) is None
