"""What a stored record must hold to be shown and scored again: types, lengths, and numbers that are numbers.

Python reads NaN and Infinity where JSON has neither; `dgpo` writes null for them (`files.to_json`). So null stands for
a number that was not finite, or is not known, and the words NaN and Infinity for a damaged or foreign file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from dgpo_cli.data.rows import Row
from dgpo_cli.errors import Problem

SIGNALS = ("logprobs", "ref_logprobs", "entropy", "hellinger")
LARGEST = float(np.finfo(np.float32).max)  # signals and advantages are float32


def is_number(value: Any) -> bool:
    """An integer or float that float32 can hold; no NaN, no infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def is_integer(value: Any) -> bool:
    """True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


# Fields of one value: what they hold where they are not null.
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "prompt_id": ("a text or a number", lambda value: isinstance(value, str) or is_number(value)),
    "prompt": ("a text", lambda value: isinstance(value, str)),
    "sample": ("an integer", is_integer),
    "reward": ("a finite number", is_number),
    "correct": ("true or false", lambda value: isinstance(value, bool)),
    "advantage": ("a finite number", is_number),
    "finish_reason": ("a text", lambda value: isinstance(value, str)),
    "vocabulary_size": ("an integer of at least 2", lambda value: is_integer(value) and value >= 2),
    "noise_floor": ("a finite number of at least 0", lambda value: is_number(value) and value >= 0),
    "policy_step": ("an integer of at least 0", lambda value: is_integer(value) and value >= 0),
    "credit_updates": ("an integer of at least 0", lambda value: is_integer(value) and value >= 0),
    "control_seed": ("an integer from 0 to below 2^128", lambda value: is_integer(value) and 0 <= value < 2**128),
}


def record_problems(row: Row, source: str) -> list[Problem]:
    """Everything in a record that cannot be used, each with the file, the line and the field."""
    record, place = row.fields, f"{source} {row.place}"
    tokens = record.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        hint = "a file that dgpo rollout or dgpo train wrote: rollouts.jsonl, rollouts/step_000001.jsonl"
        return [Problem(f"{place}: tokens: expected a list of texts, one a token, found {_shown(tokens)}", hint)]
    counted = record.get("logprobs")
    counts = len(counted) if isinstance(counted, list) else 0
    found = [
        f"{name}: expected {expected} or null, found {_shown(record[name])}"
        for name, (expected, is_right) in FIELDS.items()
        if record.get(name) is not None and not is_right(record[name])
    ]
    if record.get("token_ids") is not None:
        found += _list("token_ids", record["token_ids"], len(tokens), f"{len(tokens)} tokens", "an integer", is_integer)
    if record.get("engine_logprobs") is not None:
        which = f"{len(tokens)} tokens"
        found += _list("engine_logprobs", record["engine_logprobs"], len(tokens), which, "a finite number", is_number)
    for name in SIGNALS:
        if record.get(name) is not None:
            which = f"{counts} counted of {len(tokens)} tokens"
            expected, is_right = (
                ("a number from 0 to 1", _is_share) if name == "hellinger" else ("a finite number", is_number)
            )
            found += _list(name, record[name], min(counts, len(tokens)), which, expected, is_right)
    if is_integer(record.get("credit_updates")) and record["credit_updates"] > 0:  # else it is computed again
        which = f"{counts} counted of {len(tokens)} tokens"
        for name in ("credit", "score"):
            found += _list(name, record.get(name), min(counts, len(tokens)), which, "a finite number", is_number)
    return [Problem(f"{place}: {text}") for text in found]


def _list(name: str, values: Any, wanted: int, which: str, expected: str, is_right: Callable[[Any], bool]) -> list[str]:
    """The problem of a list of `wanted` values, if it has one."""
    if not isinstance(values, list) or len(values) != wanted:
        return [f"{name}: expected {expected} for each of the {which}, found {_shown(values)}"]
    wrong = [at for at, value in enumerate(values) if value is not None and not is_right(value)]
    if not wrong:
        return []
    found = f"{_shown(values[wrong[0]])} for token {wrong[0]}"
    return [f"{name}: expected {expected} or null for each of the {which}, found {found}"]


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _shown(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, list) else json.dumps(value, default=str)[:60]
