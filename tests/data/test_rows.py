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


def test_a_key_that_stands_twice_in_an_object_is_refused(tmp_path: Path) -> None:
    message = "line 2: key 'answer' stands twice in an object, with '3' and '4'"
    path = written(tmp_path / "a.jsonl", '{"answer": "1"}\n{"answer": "3", "answer": "4"}\n')
    assert messages_of(path) == [f"{path} {message}"]
    assert "key 'a' stands twice" in messages_of(written(tmp_path / "b.json", '[{"x": {"a": 1, "a": 2}}]'))[0]


@pytest.mark.parametrize("header", ["problem,answer,answer", "answer,problem,answer ", "\ufeffanswer,b, answer"])
def test_two_columns_of_one_name_are_refused_by_csv(tmp_path: Path, header: str) -> None:
    path = written(tmp_path / "a.csv", f"{header}\n1,2,3\n")
    assert messages_of(path) == [f"{path} line 1: two columns are called 'answer'"]


def test_two_columns_of_one_name_are_refused_by_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for names, expected in ((["answer", "answer"], "called 'answer'"), (["answer", "answer "], "blanks aside")):
        parquet.write_table(pyarrow.table([["1"], ["2"]], names=names), tmp_path / "a.parquet")
        assert expected in messages_of(tmp_path / "a.parquet")[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "problem , answer\nx, 2\n"),
        ("a.csv", '"problem", "answer"\n"x", "2"\n'),
        ("a.jsonl", '{"problem ": "x", "\\u200banswer": "2"}\n'),
        ("a.json", '[{" problem": "x", "answer\\n": "2"}]'),
    ],
)
def test_blanks_around_column_names_are_left_out_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    [row] = read_rows(written(tmp_path / name, content))
    assert row.fields == {"problem": "x", "answer": "2"}
    assert "blanks around column names are left out" in capsys.readouterr().err


def test_another_separator_is_found_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for separator, first in ((";", ""), ("\t", ""), ("|", ""), (";", "sep=;\n")):
        text = f'{first}problem{separator}answer\n"a{separator}b, c"{separator}1,5\n'
        [row] = read_rows(written(tmp_path / "a.csv", text))
        assert row.fields == {"problem": f"a{separator}b, c", "answer": "1,5"}
        assert row.place == f"line {2 + bool(first)}"
        assert f"read with {separator!r} between its columns: problem, answer" in capsys.readouterr().err


def test_a_comma_stays_the_separator_where_the_header_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [row] = read_rows(written(tmp_path / "a.csv", "problem,answer\na;b,2\n"))
    assert row.fields == {"problem": "a;b", "answer": "2"}
    assert capsys.readouterr().err == ""


def test_columns_without_a_name_are_left_out_and_said_where_they_hold_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [row] = read_rows(written(tmp_path / "a.csv", ",problem,answer,,\n7,x,2,,\n"))
    assert row.fields == {"problem": "x", "answer": "2"}
    assert "a column without a name is left out (column 1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('problem,answer\nx, "2"\n', "line 2: a blank stands between the separator and the quote"),
        ("problem,answer\nx,\0\n", "line 2: holds a zero byte"),
    ],
)
def test_values_that_csv_would_take_with_their_quotes_are_refused(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in messages_of(written(tmp_path / "a.csv", content))[0]


def test_bytes_are_read_as_text_where_they_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"answer": [b"2", None, "½".encode()], "image": [b"\xff\xd8", b"\xff", b"\xff"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = [row.fields for row in read_rows(tmp_path / "a.parquet")]
    assert [row["answer"] for row in rows] == ["2", None, "½"]
    assert rows[0]["image"] == b"\xff\xd8"
    said = capsys.readouterr().err
    assert "column 'answer' holds bytes; they are read as UTF-8 text" in said
    assert "image" not in said


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "answer=7").mkdir()
    parquet.write_table(pyarrow.table({"problem": ["x"]}), tmp_path / "answer=7" / "a.parquet")
    assert read_rows(tmp_path / "answer=7" / "a.parquet")[0].fields == {"problem": "x"}


CHAT = [{"role": "user", "content": "1 + 1?"}]


@pytest.mark.parametrize(
    "row", [{"problem": "1 + 1?", "answer": ["2"]}, {"problem": CHAT, "answer": 2}, {"answer": 2, "steps": [{"a": 1}]}]
)
def test_a_json_file_of_one_object_is_one_row(tmp_path: Path, row: dict[str, object]) -> None:
    for indent in (None, 2):
        for name in ("a.json", "a.jsonl"):
            path = written(tmp_path / name, json.dumps(row, indent=indent))
            assert [one.fields for one in read_rows(path, ("prompt|problem", "answer"))] == [row]


def test_rows_inside_an_object_are_found_beside_other_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"authors": [{"name": "a"}], "data": ROWS, "tags": ["x"]}
    assert [row.fields for row in read_rows(written(tmp_path / "a.json", json.dumps(tables)))] == ROWS
    assert capsys.readouterr().err == ""
    assert len(read_rows(written(tmp_path / "b.json", json.dumps({"version": 1, "aime": ROWS})))) == 2
    assert "the 2 objects under 'aime' are read as its rows" in capsys.readouterr().err
    both = written(tmp_path / "c.json", json.dumps({"train": ROWS, "test": ROWS}))
    assert "found several: train, test" in messages_of(both)[0]


def test_a_list_in_a_jsonl_file_is_read_as_json_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for indent in (None, 2):
        path = written(tmp_path / "a.jsonl", json.dumps(ROWS, indent=indent))
        assert [row.fields for row in read_rows(path)] == ROWS
        assert "one JSON list, not one object a line: read as .json" in capsys.readouterr().err


def test_endings_in_capitals_and_utf_16_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS)
    assert len(read_rows(written(tmp_path / "a.JSONL", lines))) == 2
    assert len(read_rows(written(tmp_path / "b.Csv", "problem,answer\r\nx,1\r\n"))) == 1
    assert [row.fields for row in read_rows(written(tmp_path / "c.jsonl", lines.encode("utf-16")))] == ROWS
    assert "read as UTF-16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"PAR1....", "a Parquet file"), (b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "zip archive")],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    for name in ("a.jsonl", "a.json", "a.csv"):
        assert expected in messages_of(written(tmp_path / name, content))[0]
