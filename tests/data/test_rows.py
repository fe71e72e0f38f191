"""Local files: every row with its place, and errors that name file, line and what was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgpo_cli.data.rows import read_rows
from dgpo_cli.errors import DataError

ROWS = [{"problem": "1 + 1?", "answer": "2"}, {"problem": 'say "a,\nb"', "answer": "3"}]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def messages_of(path: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_rows(path)
    return [problem.message for problem in caught.value.problems]


def test_the_same_rows_come_from_every_format(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = "\n".join(json.dumps(row) for row in ROWS)
    files = [
        written(tmp_path / "a.jsonl", f"\ufeff{lines}\n\n"),
        written(tmp_path / "b.json", json.dumps(ROWS)),
        written(tmp_path / "c.json", json.dumps({"version": 1, "data": ROWS})),
        written(tmp_path / "d.json", lines),
        written(tmp_path / "e.csv", 'problem,answer\r\n1 + 1?,2\r\n"say ""a,\nb""",3\r\n'),
    ]
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "f.parquet")
    for path in [*files, tmp_path / "f.parquet"]:
        assert [row.fields for row in read_rows(path)] == ROWS, path.name


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"problem": "a\u2028b", "answer": 1}\n')
    assert read_rows(path)[0].fields["problem"] == "a\u2028b"


def test_broken_lines_are_named_all_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": \n[1]\n{"a": "\xff"}\n\n{"a": 2}}\n')
    messages = messages_of(path)
    assert [message.split(":")[0] for message in messages] == [f"{path} line {line}" for line in (2, 3, 4, 6)]
    assert "not JSON" in messages[0]
    assert "found list" in messages[1]
    assert "not UTF-8" in messages[2]


def test_many_broken_lines_end_in_a_count(tmp_path: Path) -> None:
    messages = messages_of(written(tmp_path / "a.jsonl", "{\n" * 33))
    assert len(messages) == 21
    assert "13 more" in messages[-1]


def test_lines_of_csv_count_what_stands_inside_quotes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'problem,answer\n"two\nlines",1\nonly one field\n')
    assert messages_of(path) == [f"{path} line 4: expected 2 fields, as in the header, found 1"]


def test_hostile_json_is_an_error_like_any_other(tmp_path: Path) -> None:
    for content in ("[" * 100_000, "1" * 10_000, '{"a": ' * 50_000):
        assert "not JSON" in messages_of(written(tmp_path / "a.jsonl", content))[0]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", "", "holds no rows"),
        ("a.csv", "problem,answer\n", "holds no rows"),
        ("a.json", "{", "line 1: not JSON"),
        ("a.json", "3", "expected a list of objects, found int"),
        ("a.json", "[1]", "row 1: expected an object"),
        ("a.parquet", "PAR1 not", "not a Parquet file"),
        ("a.txt", "x", "expected a file that ends in .jsonl .json .csv .parquet"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str, expected: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    assert expected in messages_of(written(tmp_path / name, content))[0]


def test_a_missing_file_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", "{}")
    with pytest.raises(DataError, match="no such file") as caught:
        read_rows(tmp_path / "trian.jsonl")
    assert str(tmp_path / "train.jsonl") in caught.value.problems[0].hint


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "found a folder" in messages_of(tmp_path)[0]
