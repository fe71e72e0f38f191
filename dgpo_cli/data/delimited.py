"""Text in columns: CSV, and the separators that spreadsheets write in its place. It knows nothing of files."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import dataclass, field

SEPARATORS = (";", "\t", "|")
_QUOTED_BEHIND_BLANKS = re.compile(r"\s+\"(?:[^\"]|\"\")*\"?\s*")


@dataclass
class Table:
    """A header and its rows, each with the line that it begins on; problems likewise."""

    separator: str
    spaced: bool = False  # a blank follows each separator, and is no part of the values
    header: list[str] = field(default_factory=list)
    header_line: int = 1
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read_delimited(text: str) -> Table:
    """The table in a text. The separator is a comma, unless the header holds none and another one instead."""
    named = re.match(r"sep=(.)\r?\n", text)  # a line of Excel's own
    skipped = 1 if named else 0
    text = text[named.end() :] if named else text
    first = _header(text, ",")
    others = [one for one in SEPARATORS if len(first) == 1 and len(_header(text, one)) > 1]
    separator = named.group(1) if named else (others or [","])[0]
    header = _header(text, separator)
    spaced = len(header) > 1 and all(name.startswith(" ") for name in header[1:])
    return _table(text, separator, skipped, spaced=spaced)


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []


def _table(text: str, separator: str, skipped: int, *, spaced: bool) -> Table:
    table = Table(separator, spaced, header_line=skipped + 1)
    limit = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=spaced)
    line = skipped + 1
    try:
        table.header = next(reader, [])
        line = skipped + reader.line_num + 1
        for values in reader:
            if values and (wrong := _wrong(values, len(table.header))):
                table.problems.append((line, wrong))
            elif values:
                table.rows.append((line, values))
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        table.problems.append((line, f"not CSV ({error})"))
    finally:
        csv.field_size_limit(limit)
    return table


def _wrong(values: list[str], columns: int) -> str | None:
    if len(values) != columns:
        return f"expected {columns} fields, as in the header, found {len(values)}"
    if any("\0" in value for value in values):
        return "holds a zero byte, which is no text"
    behind = next((value for value in values if _QUOTED_BEHIND_BLANKS.fullmatch(value)), None)
    return None if behind is None else f"a blank stands between the separator and the quote of {behind[:40]!r}"
