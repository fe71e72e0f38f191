"""The columns that a reward function asks for: kept as read, in whatever kind of file they come; others are not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from dgpo_cli.data.problems import load_problem_set
from dgpo_cli.errors import DataError
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, Problem

ROWS: list[dict[str, Any]] = [
    {"prompt": "1 + 1?", "answer": 2, "level": "easy", "facts": {"steps": [1, 2.5], "odd": None}},
    {"prompt": "2 + 2?", "answer": 4, "facts": {"steps": [], "odd": True}},
]
LEVEL = ColumnsAsked(required=frozenset({"level"}))
ROW = ColumnsAsked(every=True)


def problems(path: Path, columns: ColumnsAsked) -> list[Problem]:
    return load_problem_set(str(path), prompt_key="prompt", answer_key="answer", columns=columns).problems


def jsonl(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert [one.columns for one in problems(jsonl(tmp_path), NO_COLUMNS)] == [{}, {}]


def test_columns_asked_for_are_kept_and_no_others(tmp_path: Path) -> None:
    assert [one.columns for one in problems(jsonl(tmp_path), LEVEL)] == [{"level": "easy"}, {}]


def test_a_row_asked_for_is_kept_as_it_was_read(tmp_path: Path) -> None:
    assert [one.columns for one in problems(jsonl(tmp_path), ROW)] == ROWS


def test_csv_keeps_texts_and_parquet_keeps_types(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,answer,level\n1 + 1?,2,3\n")
    assert problems(tmp_path / "rows.csv", LEVEL)[0].columns == {"level": "3"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROWS[0] | {"level": 3}]), tmp_path / "rows.parquet")
    assert problems(tmp_path / "rows.parquet", ROW)[0].columns == ROWS[0] | {"level": 3}


def test_dates_and_decimals_are_kept_as_text(tmp_path: Path) -> None:
    row = {"prompt": "p", "answer": "1", "at": datetime(2025, 3, 1, tzinfo=UTC), "price": [Decimal("1.50")]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    asked = ColumnsAsked(optional=frozenset({"at", "price"}))
    assert problems(tmp_path / "rows.parquet", asked)[0].columns == {
        "at": "2025-03-01T00:00:00+00:00",
        "price": ["1.50"],
    }


def test_the_bundled_task_has_its_columns_too() -> None:
    keys: dict[str, Any] = {"prompt_key": "prompt", "answer_key": "answer"}
    gold = load_problem_set("bundled:digit_chain", **keys, size=1, columns=ROW).problems[0]
    assert set(gold.columns) == {"prompt", "completion", "answer"}


def test_columns_change_neither_hashes_nor_what_is_equal(tmp_path: Path) -> None:
    path = jsonl(tmp_path)
    keys: dict[str, Any] = {"prompt_key": "prompt", "answer_key": "answer"}
    without, whole = (load_problem_set(str(path), **keys, columns=columns) for columns in (NO_COLUMNS, ROW))
    assert without == whole
    assert [hash(one) for one in without.problems] == [hash(one) for one in whole.problems]


def test_a_column_that_no_row_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        problems(jsonl(tmp_path), ColumnsAsked(required=frozenset({"levle"})))
    assert "the reward function asks for levle: no such column; the columns are prompt, answer, level, facts" in str(
        caught.value
    )
    assert caught.value.problems[0].hint == "did you mean level?"


def test_an_optional_column_may_be_in_no_row(tmp_path: Path) -> None:
    assert problems(jsonl(tmp_path), ColumnsAsked(optional=frozenset({"tolerance"})))[0].columns == {}


def test_bytes_that_are_no_text_are_refused_if_they_are_asked_for(tmp_path: Path) -> None:
    row = {"prompt": "p", "answer": "1", "image": b"\x89PNG\xff"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    assert problems(tmp_path / "rows.parquet", NO_COLUMNS)[0].columns == {}
    with pytest.raises(DataError, match=r"row 1: the reward function asks for image, which cannot be given to it"):
        problems(tmp_path / "rows.parquet", ROW)
