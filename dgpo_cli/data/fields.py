"""Where a key finds its value in a row: `a|b` takes the first that holds something, dots reach nested fields.

Pure functions. A flattened file may have dots in the names of its columns, at any depth.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from dgpo_cli.data.rows import Row
from dgpo_cli.errors import DataError

ABSENT = object()


def field(fields: dict[str, Any], keys: str) -> Any:
    """The first of `a|b` that holds something; None if the fields are there and empty. ValueError: none is there."""
    found = [value for key in keys.split("|") if (value := _lookup(fields, key.strip())) is not ABSENT]
    if not found:
        raise ValueError(f"no such column in this row; it has {', '.join(columns(fields)) or 'none'}")
    return next((value for value in found if value not in (None, "", [])), None)


def has_field(fields: dict[str, Any], keys: str) -> bool:
    return any(True for key in keys.split("|") for _ in all_at(fields, key.strip()))


def all_at(fields: dict[str, Any], key: str) -> Iterator[Any]:
    """Every value that a key may mean."""
    if key in fields:
        yield fields[key]
    parts = key.split(".")
    for count in range(1, len(parts)):
        inside = fields.get(".".join(parts[:count]))
        if isinstance(inside, dict):
            yield from all_at(inside, ".".join(parts[count:]))


def columns(fields: dict[str, Any], prefix: str = "") -> list[str]:
    """The names of all fields, nested ones with dots."""
    names: list[str] = []
    for name, value in fields.items():
        names.append(f"{prefix}{name}")
        if isinstance(value, dict):
            names.extend(columns(value, f"{prefix}{name}."))
    return names


def raise_missing(rows: list[Row], source: str, key: str, keys: str) -> None:
    """Say which columns there are, and the nearest to what was asked for. key: the setting that asks for `keys`."""
    found = sorted({column for row in rows[:100] for column in columns(row.fields)})
    close = nearest(keys.split("|"), found)
    raise DataError(
        f"{source} {rows[0].place}: {key}={keys}: no such column; the columns are {', '.join(found) or 'none'}",
        f"{key}={close}" if close else f"{key}=COLUMN",
    )


def nearest(asked: Collection[str], found: Collection[str]) -> str | None:
    """The column whose name is most like one of those asked for, upper and lower case aside."""
    by_lower = {column.lower(): column for column in found}
    for one in asked:
        if close := difflib.get_close_matches(one.strip().lower(), by_lower, n=1, cutoff=0.5):
            return by_lower[close[0]]
    return None


def shown(value: Any) -> str:
    """The beginning of a value, for a line that refuses it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _lookup(fields: dict[str, Any], key: str) -> Any:
    """The value of a column or a nested field. Raises ValueError if `a.b` is both, with two values."""
    found = list(all_at(fields, key))
    if any(repr(other) != repr(found[0]) for other in found[1:]):
        raise ValueError(f"expected one value, found a column '{key}' and a nested field: {shown(found)}")
    return found[0] if found else ABSENT
