"""Rows of a local file: JSONL, JSON, CSV or Parquet, each with the place that an error names.

It owns reading and the format's own errors; what a row must hold is decided in `problems`. A blank line of a JSONL
file is no row. A .json file that turns out to hold one object a line is read as JSONL.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgpo_cli.errors import DataError, Problem

SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Row:
    """One record of a data set and where it stands ("line 12" of a text file, "row 12" elsewhere; counted from 1)."""

    place: str
    fields: dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Every row of a local file. Raises DataError naming the file, the line and what was found there."""
    if path.is_dir():
        raise DataError(f"{path}: expected a file, found a folder", f"give one of {' '.join(READERS)}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: expected a file that ends in {' '.join(READERS)}, got {path.suffix!r}", "convert or rename it"
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such file", _nearest_file(path))
    try:
        rows = reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", "check its permissions") from error
    if not rows:
        raise DataError(f"{path}: holds no rows", "one JSON object a line, with a prompt and an answer")
    return rows


def raise_all(problems: list[Problem], source: str) -> None:
    """Raise the problems of a source as one DataError: the first twenty, then their number. None: nothing happens."""
    if not problems:
        return
    shown = problems[:SHOWN_PROBLEMS]
    if len(problems) > SHOWN_PROBLEMS:
        shown.append(Problem(f"{source}: and {len(problems) - SHOWN_PROBLEMS} more rows that cannot be used"))
    if not any(problem.hint for problem in shown):
        shown[-1] = Problem(shown[-1].message, "mend these rows or take them out: every row is checked before a start")
    raise DataError.of(shown)


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in READERS]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else ""


def _read_jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    problems: list[Problem] = []
    lines = (
        path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    )  # never splitlines(): U+2028 may stand in a string
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.decode())
        except UnicodeDecodeError as error:
            problems.append(Problem(f"{path} line {number}: not UTF-8 (byte {error.start + 1} of the line)"))
        except (ValueError, RecursionError) as error:
            found = line[:60].decode(errors="replace").strip()
            problems.append(Problem(f"{path} line {number}: not JSON ({_json_reason(error)}): {found!r}"))
        else:
            if isinstance(fields, dict):
                rows.append(Row(f"line {number}", fields))
            else:
                problems.append(
                    Problem(f"{path} line {number}: expected an object {{...}}, found {type(fields).__name__}")
                )
    raise_all(problems, str(path))
    return rows


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _read_json(path: Path) -> list[Row]:
    try:
        content = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return _read_jsonl(path)
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"{path}{line}: not JSON ({_json_reason(error)})",
            "a .json file holds a list of objects; one a line is .jsonl",
        ) from error
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else [content]
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, found {type(content).__name__}")
    problems = [
        Problem(f"{path} row {number}: expected an object {{...}}, found {type(fields).__name__}")
        for number, fields in enumerate(content, 1)
        if not isinstance(fields, dict)
    ]
    raise_all(problems, str(path))
    return [Row(f"row {number}", fields) for number, fields in enumerate(content, 1)]


def _read_csv(path: Path) -> list[Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start + 1})", "save it as UTF-8") from error
    limit = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    problems: list[Problem] = []
    line = 1
    try:
        header = next(reader, [])
        line = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(header):
                problems.append(
                    Problem(f"{path} line {line}: expected {len(header)} fields, as in the header, found {len(values)}")
                )
            elif values:
                rows.append(Row(f"line {line}", dict(zip(header, values, strict=True))))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(Problem(f"{path} line {line}: not CSV ({error})"))
    finally:
        csv.field_size_limit(limit)
    raise_all(problems, str(path))
    return rows


def _read_parquet(path: Path) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow", "pip install 'dgpo[parquet]'") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from error
    return [Row(f"row {number}", fields) for number, fields in enumerate(table.to_pylist(), 1)]


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
