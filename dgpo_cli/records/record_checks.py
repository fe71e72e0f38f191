"""What a stored record must hold to be shown and scored again: types, lengths, and numbers that are numbers.

JSON has no NaN and no Infinity, and `dgpo` writes null for them (`files.to_json`). So null stands for a number that was
not finite or is not known. Python reads the words NaN and Infinity all the same; they mean that the file is damaged, or
that another program wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from dgpo_cli.data.rows import Row
from dgpo_cli.errors import Problem
from dgpo_cli.records.alternatives import alternative_problem

SIGNALS = ("logprobs", "ref_logprobs", "entropy", "hellinger", "grad_norm", "first_error")
CREDIT = ("credit", "score")
LARGEST = float(np.finfo(np.float32).max)  # signals and advantages are float32


def is_number(value: Any) -> bool:
    """An integer or float that float32 can hold; no NaN, no infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def is_integer(value: Any) -> bool:
    """True and False are none, though Python counts them as integers."""
    return isinstance(value, int) and not isinstance(value, bool)


def are_numbers_by_name(value: Any) -> bool:
    """Named parts of a reward; one that was not finite is null."""
    return isinstance(value, dict) and all(part is None or is_number(part) for part in value.values())


# What a field holds if it is not null: in words, and as a test.
Kind = tuple[str, Callable[[Any], bool]]
NUMBER: Kind = ("a finite number", is_number)
INTEGER: Kind = ("an integer", is_integer)
TEXT: Kind = ("a text", lambda value: isinstance(value, str))
VALUES: dict[str, Kind] = {
    "prompt_id": ("a text or a number", lambda value: isinstance(value, str) or is_number(value)),
    "prompt": TEXT,
    "sample": INTEGER,
    "reward": NUMBER,
    "reward_parts": ("an object of finite numbers", are_numbers_by_name),
    "correct": ("true or false", lambda value: isinstance(value, bool)),
    "advantage": NUMBER,
    "finish_reason": TEXT,
    "vocabulary_size": ("an integer of at least 2", lambda value: is_integer(value) and value >= 2),
    "noise_floor": ("a finite number of at least 0", lambda value: is_number(value) and value >= 0),
    "policy_step": ("an integer of at least 0", lambda value: is_integer(value) and value >= 0),
    "credit_updates": ("an integer of at least 0", lambda value: is_integer(value) and value >= 0),
    "control_seed": ("an integer from 0 to below 2^128", lambda value: is_integer(value) and 0 <= value < 2**128),
}
TOKEN_LISTS: dict[str, Kind] = {"token_ids": INTEGER, "engine_logprobs": NUMBER}
COUNTED_LISTS: dict[str, Kind] = {
    **dict.fromkeys((*SIGNALS, *CREDIT), NUMBER),
    "grad_norm": ("a number from 0 to 1.42", lambda value: is_number(value) and 0 <= value <= 1.42),  # at most sqrt 2
    "first_error": ("0 or 1", lambda value: value in (0, 1)),
    "hellinger": ("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
}


def record_problems(row: Row, source: str) -> list[Problem]:
    """Everything in a record that cannot be used, each with the file, the line and the field."""
    record, place = row.fields, f"{source} {row.place}"
    tokens = record.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        hint = "a file that dgpo rollout or dgpo train wrote: rollouts.jsonl, rollouts/step_000001.jsonl"
        return [Problem(f"{place}: tokens: expected a list of texts, one a token, found {_shown(tokens)}", hint)]
    found = [*_value_problems(record), *_token_problems(record, len(tokens)), *_counted_problems(record, len(tokens))]
    alternatives = None if found else alternative_problem(record)
    found += [alternatives] if alternatives else []
    return [Problem(f"{place}: {text}") for text in found]


def _value_problems(record: dict[str, Any]) -> list[str]:
    return [
        f"{name}: expected {expected} or null, found {_shown(record[name])}"
        for name, (expected, is_right) in VALUES.items()
        if record.get(name) is not None and not is_right(record[name])
    ]


def _token_problems(record: dict[str, Any], tokens: int) -> list[str]:
    """Of the lists with a value for every token."""
    which = f"{tokens} tokens"
    return [
        problem
        for name, (expected, is_right) in TOKEN_LISTS.items()
        if record.get(name) is not None
        for problem in _list_problems(name, record[name], tokens, which, expected, is_right)
    ]


def _counted_problems(record: dict[str, Any], tokens: int) -> list[str]:
    """Of the lists with a value for each counted token: these are the first tokens, as many as there are log-probs."""
    logprobs = record.get("logprobs")
    counted = len(logprobs) if isinstance(logprobs, list) else 0
    which = f"{counted} counted of {tokens} tokens"
    names = [name for name in SIGNALS if record.get(name) is not None]
    if is_integer(record.get("credit_updates")) and record["credit_updates"] > 0:
        names += CREDIT  # a mean over updates, which is shown as it stands; other credit is computed again
    return [
        problem
        for name in names
        for problem in _list_problems(name, record.get(name), min(counted, tokens), which, *COUNTED_LISTS[name])
    ]


def _list_problems(
    name: str, values: Any, wanted: int, which: str, expected: str, is_right: Callable[[Any], bool]
) -> list[str]:
    """The first problem of what should be a list of `wanted` values, if there is one."""
    if not isinstance(values, list) or len(values) != wanted:
        return [f"{name}: expected {expected} for each of the {which}, found {_shown(values)}"]
    wrong = [at for at, value in enumerate(values) if value is not None and not is_right(value)]
    if not wrong:
        return []
    found = f"{_shown(values[wrong[0]])} for token {wrong[0]}"
    return [f"{name}: expected {expected} or null for each of the {which}, found {found}"]


def _shown(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, list) else json.dumps(value, default=str)[:60]
