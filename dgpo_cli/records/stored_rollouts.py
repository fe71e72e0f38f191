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

from dgpo_cli.algorithm import Credit
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.data.rows import Row, raise_all, read_rows
from dgpo_cli.files import finite
from dgpo_cli.records.record_checks import SIGNALS, record_problems

UNKNOWN = {"logprobs": -math.inf, "ref_logprobs": -math.inf}  # what null most likely was; elsewhere NaN


@dataclass(frozen=True)
class StoredRollouts:
    """B rollouts of a file or of a step, with what is known of their counted tokens."""

    source: str  # the file, as errors and the page name it
    records: list[dict[str, Any]]
    signals: TokenSignals  # [B, T]; 0 where a signal is not stored
    lacking: dict[str, str]  # signal -> the first record that has none
    unknown: dict[str, str]  # signal -> the first record with a null among its values
    advantages: Tensor  # [B], 0 where none is stored
    vocabulary_size: int | None
    noise_floor: float | None  # None: not measured
    control_seeds: list[int]

    def with_vocabulary(self, size: int) -> StoredRollouts:
        """For a file that does not say how many ids its model has."""
        return replace(self, vocabulary_size=size)

    def only(self, rows: list[int]) -> StoredRollouts:
        """Some rollouts, to be shown: credit is computed from all of them."""
        whole = self.signals
        signals = TokenSignals(
            whole.mask[rows],
            whole.logprobs[rows],
            whole.entropy[rows],
            None if whole.ref_logprobs is None else whole.ref_logprobs[rows],
            None if whole.hellinger is None else whole.hellinger[rows],
        )
        return replace(
            self,
            records=[self.records[row] for row in rows],
            signals=signals,
            advantages=self.advantages[rows],
            control_seeds=[self.control_seeds[row] for row in rows],
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
    return stored_rollouts(read_rows(path, ("tokens",)), str(path), seed=seed)


def rollouts_at_hand(records: list[dict[str, Any]], source: str) -> StoredRollouts:
    """As `read_stored` would give them, once they are written to a file."""
    return stored_rollouts([Row(f"line {number}", finite(record)) for number, record in enumerate(records, 1)], source)


def stored_rollouts(rows: list[Row], source: str, *, seed: int = 0) -> StoredRollouts:
    """As `read_stored`, of rows that were read."""
    raise_all([problem for row in rows for problem in record_problems(row, source)], source)
    records = [row.fields for row in rows]
    lengths = [len(record.get("logprobs") or []) for record in records]
    mask = torch.arange(max(lengths, default=0))[None, :] < torch.tensor(lengths)[:, None]
    columns, lacking, unknown = {}, {}, {}
    for name in SIGNALS:
        without = [row.place for row, length in zip(rows, lengths, strict=True) if length and not row.fields.get(name)]
        if without:
            lacking[name] = without[0]
        nulls = [row.place for row in rows if None in (row.fields.get(name) or ())]
        if nulls:
            unknown[name] = nulls[0]
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
        unknown,
        torch.tensor([record.get("advantage") or 0.0 for record in records]),
        _only(sizes),
        _only(floors),
        [
            int(seed_of) if (seed_of := record.get("control_seed")) is not None else derive_seed("control", seed, row)
            for row, record in enumerate(records)
        ],
    )


def trained_credit(stored: StoredRollouts) -> Credit | None:
    """The records' credit where it is a mean over updates, NaN in rollouts that none trained; else None."""
    times = [record.get("credit_updates") for record in stored.records]
    if not any(times):
        return None
    weights, score = (_table(stored.records, name, stored.signals.mask) for name in ("credit", "score"))
    without = torch.tensor([not count for count in times])[:, None] & stored.signals.mask
    return Credit(weights.masked_fill(without, math.nan), score.masked_fill(without, math.nan), 1.0)


def _only(values: set[Any]) -> Any:
    return next(iter(values)) if len(values) == 1 else None


def _table(records: list[dict[str, Any]], name: str, mask: Tensor) -> Tensor:
    """[B, T] float32; null is -inf for a log-prob, NaN for another signal."""
    table, null = torch.zeros(mask.shape), UNKNOWN.get(name, math.nan)
    for row, record in enumerate(records):
        values = record.get(name)
        if values:
            table[row, : len(values)] = torch.tensor([null if value is None else value for value in values])
    return table
