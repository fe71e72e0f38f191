"""What a row keeps for the grader beside its prompt and gold: the columns that a reward function asks for.

No grader of dgpo's own asks for any, and then nothing is kept: the other columns of a data set (solutions, earlier
generations) can be many times the size of its prompts. A value is kept as it was read. Parquet and the hub have dates
and decimals, which JSON has not: they are kept as text.
"""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Any

from dgpo_cli.data.fields import nearest, shown
from dgpo_cli.data.rows import Row, raise_all
from dgpo_cli.errors import DataError, Problem
from dgpo_cli.types import ColumnsAsked

NOTHING: dict[str, Any] = {}


def kept_columns(rows: list[Row], asked: ColumnsAsked, source: str) -> list[dict[str, Any]]:
    """The columns of each row that are asked for.

    Raises:
        DataError: no row has a required column, or a value is nothing that JSON can hold (an image).
    """
    names = asked.required | asked.optional
    if not names and not asked.every:
        return [NOTHING] * len(rows)
    _require(rows, asked.required, source)
    kept, problems = [], []
    for row in rows:
        fields = row.fields if asked.every else {name: row.fields[name] for name in row.fields.keys() & names}
        try:
            kept.append({name: _plain(name, value) for name, value in fields.items()})
        except ValueError as error:
            problems.append(Problem(f"{source} {row.place}: {error}", "let it ask for columns by name, not for row"))
    raise_all(problems, source)
    return kept


def _require(rows: list[Row], names: frozenset[str], source: str) -> None:
    found = {name: None for row in rows for name in row.fields}
    missing = sorted(names - found.keys())
    if missing:
        close = nearest(missing[:1], found)
        raise DataError(
            f"{source}: the reward function asks for {', '.join(missing)}: no such column; the columns are "
            f"{', '.join(found) or 'none'}",
            f"did you mean {close}?" if close else "row is the whole row; a default makes a column optional",
        )


def _plain(name: str, value: Any) -> Any:
    """The value itself if JSON can hold it, else the nearest that JSON can hold."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {key: _plain(name, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise ValueError(f"the reward function asks for {name}, which cannot be given to it: {shown(value)}")
