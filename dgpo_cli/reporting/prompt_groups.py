"""Rollouts by prompt, in the order in which both views show them: right before wrong, the higher reward first."""

from __future__ import annotations

from typing import Any

SIDES = ("right", "wrong", "above", "below", "alone")  # the last three where right and wrong are not known


def group_numbers(records: list[dict[str, Any]]) -> list[int]:
    """The group of each record, by first appearance: a prompt's rollouts; a sample that comes again begins another."""
    seen: dict[Any, int] = {}
    numbers: dict[Any, int] = {}
    found = []
    for record in records:
        prompt = (str(record.get("prompt_id")), record.get("prompt") or "")
        place = (prompt, record.get("sample"))
        again = seen[place] = seen.get(place, -1) + 1
        found.append(numbers.setdefault((prompt, again), len(numbers)))
    return found


def shown_order(records: list[dict[str, Any]]) -> list[list[int]]:
    """Rows by group, those of a group as they are shown."""
    groups: dict[int, list[int]] = {}
    for row, number in enumerate(group_numbers(records)):
        groups.setdefault(number, []).append(row)
    return [sorted(rows, key=lambda row: _rank(records[row])) for rows in groups.values()]


def side(record: dict[str, Any]) -> str:
    """Right or wrong; where that is not known, above the group's mean or not; alone where nothing is known."""
    if record.get("correct") is not None:
        return "right" if record["correct"] else "wrong"
    advantage = record.get("advantage")
    return "alone" if advantage is None else "above" if advantage > 0 else "below"


def _rank(record: dict[str, Any]) -> tuple[int, float, int]:
    return SIDES.index(side(record)), -(record.get("reward") or 0.0), record.get("sample") or 0
