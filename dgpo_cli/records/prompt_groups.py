"""The rollouts of a prompt: which records are a group, and which of a group are right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SIDES = ("right", "wrong", "above", "below", "alone")  # in the order in which they are shown


def group_numbers(records: list[dict[str, Any]]) -> list[int]:
    """The group of each record, numbered by first appearance.

    A group is the rollouts of one prompt. If a sample of the prompt comes again, as a run's file can have it that draws
    a prompt twice, it begins another group.
    """
    seen: dict[Any, int] = {}
    numbers: dict[Any, int] = {}
    found = []
    for record in records:
        prompt = (str(record.get("prompt_id")), record.get("prompt") or "")
        place = (prompt, record.get("sample"))
        again = seen[place] = seen.get(place, -1) + 1
        found.append(numbers.setdefault((prompt, again), len(numbers)))
    return found


def rows_by_group(records: list[dict[str, Any]]) -> list[list[int]]:
    """The rows of each group, in the order of the records."""
    groups: dict[int, list[int]] = {}
    for row, number in enumerate(group_numbers(records)):
        groups.setdefault(number, []).append(row)
    return list(groups.values())


def group_accuracy(records: list[dict[str, Any]]) -> Tensor | None:
    """[B] the share of right answers in each record's group; None if an answer is not known to be right or wrong."""
    if any(record.get("correct") is None for record in records):
        return None
    shares = torch.zeros(len(records))
    for rows in rows_by_group(records):
        shares[rows] = sum(bool(records[row]["correct"]) for row in rows) / len(rows)
    return shares


def is_mixed(records: list[dict[str, Any]]) -> bool:
    """Whether a group has both right and wrong answers."""
    return {True, False} <= {record.get("correct") for record in records}


def side(record: dict[str, Any]) -> str:
    """One of SIDES: right or wrong; if that is not known, above the group's mean or not; alone if nothing is known."""
    if record.get("correct") is not None:
        return "right" if record["correct"] else "wrong"
    advantage = record.get("advantage")
    return "alone" if advantage is None else "above" if advantage > 0 else "below"
