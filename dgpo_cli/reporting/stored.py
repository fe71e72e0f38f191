"""Rollouts read back from a file: the signals that credit is computed from again, without any model.

A record holds the lists of its counted tokens, null where a rollout was not scored, and beside them what credit depends
on: `vocabulary_size`, `noise_floor`, `control_seed` (see `records`). What a file lacks is refused where it is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.data.rows import Row, raise_all, read_rows
from dgpo_cli.errors import Problem

SIGNALS = ("logprobs", "ref_logprobs", "entropy", "hellinger")
MAY_BE_INFINITE = ("logprobs", "ref_logprobs")  # JSON has no -inf: null stands for it


@dataclass(frozen=True)
class StoredRollouts:
    """B rollouts of a file or of a step, with what is known of their counted tokens."""

    source: str  # the file, as errors and the page name it
    records: list[dict[str, Any]]
    signals: TokenSignals  # [B, T]; 0 where a signal is not stored
    lacking: dict[str, str]  # signal -> the first record that has none
    advantages: Tensor  # [B], 0 where none is stored
    vocabulary_size: int | None
    noise_floor: float | None  # None: not measured
    control_seeds: list[int]

    def with_vocabulary(self, size: int) -> StoredRollouts:
        """For a file that does not say how many ids its model has."""
        return replace(self, vocabulary_size=size)

    def first(self, count: int) -> StoredRollouts:
        """The first `count` rollouts, to be shown: credit is computed from all of them."""
        whole = self.signals
        signals = TokenSignals(
            whole.mask[:count],
            whole.logprobs[:count],
            whole.entropy[:count],
            None if whole.ref_logprobs is None else whole.ref_logprobs[:count],
            None if whole.hellinger is None else whole.hellinger[:count],
        )
        return replace(
            self,
            records=self.records[:count],
            signals=signals,
            advantages=self.advantages[:count],
            control_seeds=self.control_seeds[:count],
        )

    @property
    def scored(self) -> list[int]:
        """Rows with counted tokens."""
        return [row for row, length in enumerate(self.signals.mask.sum(dim=1).tolist()) if length]


def read_stored(path: Path, *, seed: int = 0) -> StoredRollouts:
    """The rollouts of a rollouts.jsonl, or of a step of a run's folder.

    `seed` gives the seeds of `gating.control` where the file has none. Raises DataError naming each record that cannot
    be used.
    """
    return stored_rollouts(read_rows(path), str(path), seed=seed)


def stored_rollouts(rows: list[Row], source: str, *, seed: int = 0) -> StoredRollouts:
    """As `read_stored`, of records at hand."""
    raise_all([problem for row in rows for problem in _problems(row, source)], source)
    records = [row.fields for row in rows]
    lengths = [len(record.get("logprobs") or []) for record in records]
    mask = torch.arange(max(lengths, default=0))[None, :] < torch.tensor(lengths)[:, None]
    columns, lacking = {}, {}
    for name in SIGNALS:
        without = [row.place for row, length in zip(rows, lengths, strict=True) if length and not row.fields.get(name)]
        if without:
            lacking[name] = without[0]
        columns[name] = _table(records, name, mask)
    reference = {name: None if name in lacking else columns[name] for name in ("ref_logprobs", "hellinger")}
    signals = TokenSignals(mask, columns["logprobs"], columns["entropy"], **reference)
    sizes = {record.get("vocabulary_size") for record in records}
    floors = {record.get("noise_floor") for record in records}
    return StoredRollouts(
        source,
        records,
        signals,
        lacking,
        torch.tensor([record.get("advantage") or 0.0 for record in records]),
        _only(sizes),
        _only(floors),
        [
            int(seed_of) if (seed_of := record.get("control_seed")) is not None else derive_seed("control", seed, row)
            for row, record in enumerate(records)
        ],
    )


def _only(values: set[Any]) -> Any:
    return next(iter(values)) if len(values) == 1 else None


def _table(records: list[dict[str, Any]], name: str, mask: Tensor) -> Tensor:
    """[B, T] float32; null is -inf, which only a log-prob can be."""
    table = torch.zeros(mask.shape)
    for row, record in enumerate(records):
        values = record.get(name)
        if values:
            table[row, : len(values)] = torch.tensor([-math.inf if value is None else value for value in values])
    return table


def _problems(row: Row, source: str) -> list[Problem]:
    record, place = row.fields, f"{source} {row.place}"
    tokens = record.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        hint = "a file that dgpo rollout or dgpo train wrote: rollouts.jsonl, rollouts/step_000001.jsonl"
        return [Problem(f"{place}: tokens: expected a list of texts, one a token, found {_shown(tokens)}", hint)]
    counted = record.get("logprobs")
    wanted = len(counted) if isinstance(counted, list) else 0
    found = []
    for name in SIGNALS:
        values = record.get(name)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != wanted or wanted > len(tokens):
            expected = f"one number for each of the {wanted} counted of {len(tokens)} tokens"
            found.append(Problem(f"{place}: {name}: expected {expected}, found {_shown(values)}"))
        elif not all(_is_number(value) or (value is None and name in MAY_BE_INFINITE) for value in values):
            found.append(Problem(f"{place}: {name}: expected numbers alone"))
    for name in ("advantage", "reward", "noise_floor", "vocabulary_size", "control_seed"):
        if record.get(name) is not None and not _is_number(record[name]):
            found.append(Problem(f"{place}: {name}: expected a number or null, found {_shown(record[name])}"))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, list) else repr(value)[:60]
