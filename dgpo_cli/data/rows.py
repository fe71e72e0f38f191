"""Rows of a local file: JSONL, JSON, CSV or Parquet, each with the place that an error names.

It owns reading and the format's own errors; what a row must hold is decided in `problems`, and what a table's header
and its values may be in `columns`. A blank line of a JSONL file is no row. A file that holds another form than its
name says (.json with one object a line, .jsonl with one list) is read as what it is, with a line on stderr, as is
everything that had to be taken otherwise than it stands.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from dgpo_cli.data.columns import clean_name, nameless, repeated, text_of_bytes
from dgpo_cli.data.delimited import read_delimited
from dgpo_cli.errors import DataError, Problem
from dgpo_cli.terminal import say

SHOWN_PROBLEMS = 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_KINDS = {
    b"PAR1": ("a Parquet file", "rename it to end in .parquet"),
    b"\x1f\x8b": ("compressed (gzip)", "unpack it: gunzip FILE"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "unpack it: unzstd FILE"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save the spreadsheet as .csv"),
}
# Lists of rows stand under such a key of a JSON object, beside facts of the file.
CONTAINERS = ("data", "rows", "examples", "records", "items", "problems", "questions", "instances", "train", "test")


@dataclass(frozen=True)
class Row:
    """One record of a data set and where it stands ("line 12" of a text file, "row 12" elsewhere; counted from 1)."""

    place: str
    fields: dict[str, Any]


class RepeatedKey(ValueError):
    """A key stands twice in one JSON object: either value could be the one that is meant."""


def read_rows(path: Path, keys: Sequence[str] = ()) -> list[Row]:
    """Every row of a local file. Raises DataError naming the file, the line and what was found there.

    `keys`: columns that a row may have; a .json object that has one of them is a row, not a table.
    """
    if path.is_dir():
        raise DataError(f"{path}: expected a file, found a folder", f"give one of {' '.join(READERS)}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        hint = "unpack it" if path.suffix.lower() in (".gz", ".zst", ".zip", ".bz2", ".xz") else "convert or rename it"
        raise DataError(f"{path}: expected a file that ends in {' '.join(READERS)}, got {path.suffix!r}", hint)
    if not path.exists():
        raise DataError(f"{path}: there is no such file", _nearest_file(path))
    try:
        rows = reader(path, keys)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", "check its permissions") from error
    if not rows:
        raise DataError(f"{path}: holds no rows", "one JSON object a line, with a prompt and an answer")
    return tidied(rows, str(path))


def tidied(rows: list[Row], source: str) -> list[Row]:
    """The rows with blanks around column names taken off, and columns of bytes as text; each is said.

    Raises:
        DataError: two columns of a row have one name then.
    """
    rows = _with_clean_names(rows, source)
    columns = dict.fromkeys(name for row in rows for name, value in row.fields.items() if isinstance(value, bytes))
    texts = {name: text for name in columns if (text := text_of_bytes([row.fields.get(name) for row in rows]))}
    for name in texts:
        say(f"note: {source}: column {name!r} holds bytes; they are read as UTF-8 text")
    if not texts:
        return rows
    return [
        Row(row.place, row.fields | {name: texts[name][at] for name in texts if name in row.fields})
        for at, row in enumerate(rows)
    ]


def _with_clean_names(rows: list[Row], source: str) -> list[Row]:
    clean = {name: clean_name(name) for row in rows for name in row.fields}
    changed = [name for name, new in clean.items() if name != new]
    if not changed:
        return rows
    problems = [
        Problem(f"{source} {row.place}: two columns are called {twice[0]!r}, blanks aside", "rename one of them")
        for row in rows
        if (twice := repeated([clean[name] for name in row.fields]))
    ]
    raise_all(problems, source)
    say(f"note: {source}: blanks around column names are left out: {', '.join(map(repr, changed))}")
    return [Row(row.place, {clean[name]: value for name, value in row.fields.items()}) for row in rows]


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


def _content(path: Path) -> bytes:
    """The bytes of a text file as UTF-8 without a byte order mark."""
    content = path.read_bytes()
    for start, (what, hint) in OTHER_KINDS.items():
        if content.startswith(start):
            raise DataError(f"{path}: expected text, the file is {what}", hint.replace("FILE", str(path)))
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeError as error:
            raise DataError(f"{path}: begins as UTF-16 and is none ({error})", "save it as UTF-8") from error
        say(f"note: {path}: read as UTF-16")
    return content.removeprefix(BYTE_ORDER_MARK)


def _parsed(text: str) -> Any:
    """JSON whose objects have each key once. Raises ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = repeated([name for name, _ in pairs])[0]
        first, second, *_ = (_short(value) for name, value in pairs if name == twice)
        raise RepeatedKey(f"key {twice!r} stands twice in an object, with {first} and {second}")
    return fields


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _read_jsonl(path: Path, keys: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    problems: list[Problem] = []
    content = _content(path)
    for number, line in enumerate(content.split(b"\n"), 1):  # never splitlines(): U+2028 may stand in a string
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            fields = _parsed(line.decode())
        except UnicodeDecodeError as error:
            problems.append(Problem(f"{place}: not UTF-8 (byte {error.start + 1} of the line)"))
        except RepeatedKey as error:
            problems.append(Problem(f"{place}: {error}"))
        except (ValueError, RecursionError) as error:
            found = line[:60].decode(errors="replace").strip()
            problems.append(Problem(f"{place}: not JSON ({_json_reason(error)}): {found!r}"))
        else:
            if isinstance(fields, dict):
                rows.append(Row(f"line {number}", fields))
            else:
                problems.append(Problem(f"{place}: expected an object {{...}}, found {type(fields).__name__}"))
    if problems and content.lstrip()[:1] in (b"[", b"{") and (whole := _whole(content)) is not None:
        say(
            f"note: {path}: one JSON {'list' if isinstance(whole, list) else 'object'}, not one object a line: "
            "read as .json"
        )
        return _rows_of(whole, path, keys)
    raise_all(problems, str(path))
    return rows


def _whole(content: bytes) -> Any:
    """The list or the object that a file is as a whole; None if it is neither, or a list of no objects."""
    try:
        whole = _parsed(content.decode())
    except (ValueError, RecursionError):
        return None
    return whole if isinstance(whole, dict) or _is_table(whole) else None


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _read_json(path: Path, keys: Sequence[str]) -> list[Row]:
    try:
        content = _parsed(_content(path).decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    except RepeatedKey as error:
        raise DataError(f"{path}: {error}", "keep one of them") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return _read_jsonl(path, keys)
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"{path}{line}: not JSON ({_json_reason(error)})",
            "a .json file holds a list of objects; one a line is .jsonl",
        ) from error
    return _rows_of(content, path, keys)


def _rows_of(content: Any, path: Path, keys: Sequence[str]) -> list[Row]:
    if isinstance(content, dict):
        content = _table_in(content, path, keys)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, found {type(content).__name__}")
    problems = [
        Problem(f"{path} row {number}: expected an object {{...}}, found {type(fields).__name__}")
        for number, fields in enumerate(content, 1)
        if not isinstance(fields, dict)
    ]
    raise_all(problems, str(path))
    return [Row(f"row {number}", fields) for number, fields in enumerate(content, 1)]


def _table_in(content: dict[str, Any], path: Path, keys: Sequence[str]) -> list[Any]:
    """The list of rows inside an object, or the object as the one row that it is."""
    if any(clean_name(name) in _first_parts(keys) for name in content):
        return [content]
    tables = {name: value for name, value in content.items() if _is_table(value) and not _is_chat(value)}
    named = {name: value for name, value in tables.items() if name.lower() in CONTAINERS}
    chosen = named or tables
    if len(chosen) > 1:
        raise DataError(
            f"{path}: expected one list of rows, found several: {', '.join(chosen)}", "a file of its own for each"
        )
    if not chosen:
        return [content]
    [(name, rows)] = chosen.items()
    if name not in named:
        say(f"note: {path}: the {len(rows)} objects under {name!r} are read as its rows")
    return rows


def _first_parts(keys: Sequence[str]) -> set[str]:
    """The columns that keys such as `a|b.c` begin with."""
    names = {name.strip() for key in keys for name in key.split("|")}
    return names | {name.partition(".")[0] for name in names}


def _is_table(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(element, dict) for element in value)


def _is_chat(rows: list[dict[str, Any]]) -> bool:
    return all("role" in row and "content" in row for row in rows)


def _read_csv(path: Path, keys: Sequence[str]) -> list[Row]:
    try:
        text = _content(path).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start + 1})", "save it as UTF-8") from error
    table = read_delimited(text)
    header = [clean_name(name) for name in table.header]
    if twice := repeated([name for name in header if name]):
        raise DataError(f"{path} line {table.header_line}: two columns are called {twice[0]!r}", "rename one of them")
    raise_all([Problem(f"{path} line {line}: {what}") for line, what in table.problems], str(path))
    if table.separator != ",":
        say(f"note: {path}: read with {table.separator!r} between its columns: {', '.join(header)}")
    if table.spaced:
        say(f"note: {path}: blanks around column names are left out, and those behind each separator")
    if unnamed := nameless(header, [values for _, values in table.rows]):
        say(f"note: {path}: a column without a name is left out (column {', '.join(map(str, unnamed))})")
    return [
        Row(f"line {line}", {name: value for name, value in zip(table.header, values, strict=True) if name.strip()})
        for line, values in table.rows
    ]


def _read_parquet(path: Path, _keys: Sequence[str]) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow", "pip install 'dgpo[parquet]'") from error
    try:
        names = pyarrow.parquet.read_schema(path).names
        if twice := repeated(names):
            raise DataError(f"{path}: two columns are called {twice[0]!r}", "rename one of them")
        # Not read_table(path): that takes names such as year=2024 in the path for columns.
        rows = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from error
    return [Row(f"row {number}", fields) for number, fields in enumerate(rows, 1)]


READERS: dict[str, Callable[[Path, Sequence[str]], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
