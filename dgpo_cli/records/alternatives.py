"""What the models would rather have said, as fields of a stored rollout: `rollout.alternatives=5` asks for them.

alternatives              ids, of each counted token: the policy's likeliest first, then the reference's others
alternative_logprobs      log p of each; null for a probability of 0
alternative_ref_logprobs  log q, with a reference
alternative_tokens        the text of each id
rank, ref_rank            of the sampled token: 1 is the likeliest
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.alternatives import from_columns

LISTS = ("alternatives", "alternative_logprobs", "alternative_ref_logprobs")
RANKS = ("rank", "ref_rank")


def alternative_fields(columns: Tensor, *, has_reference: bool, spell: Callable[[int], str]) -> dict[str, Any]:
    """The fields of a rollout from the columns [length, C] of its counted tokens (`core/alternatives.py`)."""
    found = from_columns(columns, has_reference=has_reference)
    tops = [found.policy] + ([] if found.reference is None else [found.reference])
    ids = torch.cat([top.ids for top in tops], dim=1).tolist()
    first = [sorted({token: each.index(token) for token in each}.values()) for each in ids]  # an id of both comes once
    tables = {"alternatives": ids, "alternative_logprobs": torch.cat([top.logprobs for top in tops], dim=1).tolist()}
    if has_reference:
        by_reference = [top.ref_logprobs for top in tops if top.ref_logprobs is not None]
        tables["alternative_ref_logprobs"] = torch.cat(by_reference, dim=1).tolist()
    fields: dict[str, Any] = {
        name: [[values[place] for place in places] for values, places in zip(table, first, strict=True)]
        for name, table in tables.items()
    }
    named = sorted({token for each in ids for token in each})
    fields["alternative_tokens"] = {str(token): spell(token) for token in named}
    return fields | {name: top.rank.tolist() for name, top in zip(RANKS, tops, strict=False)}


def alternative_problem(record: dict[str, Any]) -> str | None:
    """What keeps the fields of a record from being shown, or None. A record without them has none."""
    ids = record.get("alternatives")
    if ids is None:
        return None
    length = len(record.get("logprobs") or [])
    if not _is_table(ids, lambda value: isinstance(value, int) and not isinstance(value, bool)) or len(ids) != length:
        return f"alternatives: expected a list of ids for each of the {length} counted tokens"
    for name in LISTS[1:]:
        table = record.get(name)
        fits = table is None or (
            _is_table(table, _is_logprob) and [len(values) for values in table] == [len(tokens) for tokens in ids]
        )
        if not fits or (table is None and name == LISTS[1]):
            return f"{name}: expected a log-probability or null for each id of alternatives"
    for name in RANKS:
        ranks = record.get(name)
        if ranks is not None and not (_is_table([ranks], _is_rank) and len(ranks) == length):
            return f"{name}: expected an integer of at least 1 for each of the {length} counted tokens"
    texts = record.get("alternative_tokens")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        return "alternative_tokens: expected the text of each id"
    return None


def _is_table(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(
        isinstance(values, list) and all(is_right(one) for one in values) for values in value
    )


def _is_logprob(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**32
