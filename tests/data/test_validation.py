"""Rows that are split off: the same ones whatever the order, and never on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgpo_cli.data.problems import load_problem_set
from dgpo_cli.data.validation import part_of
from dgpo_cli.errors import DataError
from dgpo_cli.types import Problem

PROBLEMS = [Problem(row, str(row), (("user", f"question {row}"),), str(row)) for row in range(1000)]


def sides(problems: list[Problem], fraction: float) -> tuple[set[str], set[str]]:
    kept = [part_of(problems, fraction, validation=validation) for validation in (False, True)]
    return {one.gold for one in kept[0]}, {one.gold for one in kept[1]}


def test_every_row_is_on_one_side_and_the_share_is_about_right() -> None:
    train, validation = sides(PROBLEMS, 0.1)
    assert not train & validation
    assert train | validation == {one.gold for one in PROBLEMS}
    assert 70 <= len(validation) <= 130


def test_rows_stay_on_their_side_as_a_file_grows_or_is_shuffled() -> None:
    assert sides(PROBLEMS[::-1], 0.1) == sides(PROBLEMS, 0.1)
    assert sides(PROBLEMS[:500], 0.1)[1] == {gold for gold in sides(PROBLEMS, 0.1)[1] if int(gold) < 500}


def test_a_prompt_that_occurs_twice_is_on_one_side() -> None:
    twice = [*PROBLEMS[:20], *(Problem(20 + row, "", PROBLEMS[row].messages, f"other {row}") for row in range(20))]
    train, validation = sides(twice, 0.5)
    assert {gold.removeprefix("other ") for gold in train}.isdisjoint(
        gold.removeprefix("other ") for gold in validation
    )


def test_at_least_one_row_is_split_off() -> None:
    train, validation = sides(PROBLEMS[:5], 0.0001)
    assert (len(train), len(validation)) == (4, 1)


def test_a_limit_counts_after_the_split(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{row}?", "answer": row}) + "\n" for row in range(60)))

    def golds(held_out: bool, limit: int | None = None) -> list[str]:
        options = {"prompt_key": "prompt", "answer_key": "answer", "limit": limit, "held_out": held_out}
        return [one.gold for one in load_problem_set(str(path), validation_fraction=0.2, **options).problems]  # type: ignore[arg-type]

    assert golds(False, 10) == golds(False)[:10]
    assert golds(True, 2) == golds(True)[:2]
    assert not set(golds(False)) & set(golds(True))
    path.write_text(json.dumps({"prompt": "1?", "answer": 1}) + "\n")
    with pytest.raises(DataError, match="1 rows cannot be split in two"):
        golds(False)
