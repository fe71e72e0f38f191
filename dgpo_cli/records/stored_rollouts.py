"""Rollouts read back from a file: the signals that credit is computed from again, without any model.

`rollout_records.py` says what a record holds. A file may lack some of it: that is no error here, but for those who need
what is missing (`regated.lacking`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.config.rollout_files import OWN
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.data.rows import Row, raise_all, read_rows
from dgpo_cli.files import finite
from dgpo_cli.records.foreign import unknown_form
from dgpo_cli.records.record_checks import SIGNALS, record_problems

# What stands for null, a number that was not finite: a log-prob is most likely that of a probability of 0. Else NaN.
UNKNOWN = {"logprobs": -math.inf, "ref_logprobs": -math.inf}


@dataclass(frozen=True)
class StoredRollouts:
    """B rollouts of a file or of a step, with what is known of their counted tokens."""

    source: str  # the file, as errors and the page name it
    records: list[dict[str, Any]]
    signals: TokenSignals  # [B, T]; 0 if a signal is not stored
    missing: dict[str, str]  # signal -> the place of the first scored record that has none
    unknown: dict[str, str]  # signal -> the place of the first record with a null among its values
    advantages: Tensor  # [B], 0 if none is stored
    vocabulary_size: int | None  # None: not stored, or records differ in it
    noise_floor: float | None  # None: not measured, or records differ in it
    control_seeds: list[int]

    def with_vocabulary(self, size: int) -> StoredRollouts:
        """For a file that does not say how many ids its model has."""
        return replace(self, vocabulary_size=size)

    def only(self, rows: list[int]) -> StoredRollouts:
        """Some of the rollouts, to be shown. Credit is computed from all of them: see `Gated.only`."""
        whole = self.signals
        signals = TokenSignals(
            whole.mask[rows],
            whole.logprobs[rows],
            whole.entropy[rows],
            None if whole.ref_logprobs is None else whole.ref_logprobs[rows],
            None if whole.hellinger is None else whole.hellinger[rows],
            None if whole.grad_norm is None else whole.grad_norm[rows],
            None if whole.first_error is None else whole.first_error[rows],
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
        """The rows that have counted tokens."""
        return [row for row, length in enumerate(self.signals.mask.sum(dim=1).tolist()) if length]


def read_stored(path: Path, *, seed: int = 0) -> StoredRollouts:
    """The rollouts of a rollouts.jsonl, or of a step of a run's folder.

    `seed` gives the seeds of `gating.control` if the file has none.

    Raises:
        DataError: names each record that cannot be used.
    """
    rows = read_rows(path, (OWN,))
    if not any(name in row.fields for row in rows for name in (OWN, "token_ids", "prompt_id")):
        raise unknown_form(rows[0], str(path))
    return stored_rollouts(rows, str(path), seed=seed)


def rollouts_at_hand(records: list[dict[str, Any]], source: str) -> StoredRollouts:
    """Records that were just made, as `read_stored` gives them once they are written to a file."""
    return stored_rollouts([Row(f"line {number}", finite(record)) for number, record in enumerate(records, 1)], source)


def stored_rollouts(rows: list[Row], source: str, *, seed: int = 0) -> StoredRollouts:
    """As `read_stored`, of rows that were read."""
    raise_all([problem for row in rows for problem in record_problems(row, source)], source)
    records = [row.fields for row in rows]
    missing = _first_places(rows, lambda record, name: bool(record.get("logprobs")) and not record.get(name))
    unknown = _first_places(rows, lambda record, name: None in (record.get(name) or ()))
    seeds = [record.get("control_seed") for record in records]
    return StoredRollouts(
        source,
        records,
        _signals(records, missing),
        missing,
        unknown,
        torch.tensor([record.get("advantage") or 0.0 for record in records]),
        _common({record.get("vocabulary_size") for record in records}),
        _common({record.get("noise_floor") for record in records}),
        [derive_seed("control", seed, row) if stored is None else int(stored) for row, stored in enumerate(seeds)],
    )


def _first_places(rows: list[Row], holds: Callable[[dict[str, Any], str], bool]) -> dict[str, str]:
    """signal -> the place of the first record that something holds of; without the signals that it holds of nowhere."""
    found = {}
    for name in SIGNALS:
        place = next((row.place for row in rows if holds(row.fields, name)), None)
        if place is not None:
            found[name] = place
    return found


def _signals(records: list[dict[str, Any]], missing: dict[str, str]) -> TokenSignals:
    """What a file may lack (a reference, or `grad_norm` of an earlier version) is None if any scored record has none.

    Log-prob and entropy are 0 there.
    """
    lengths = torch.tensor([len(record.get("logprobs") or []) for record in records])
    mask = torch.arange(int(lengths.max()) if len(records) else 0)[None, :] < lengths[:, None]  # [B, T]
    columns = {name: _table(records, name, mask) for name in SIGNALS}
    optional = ("ref_logprobs", "hellinger", "grad_norm", "first_error")
    found = {name: None if name in missing else columns[name] for name in optional}
    return TokenSignals(mask, columns["logprobs"], columns["entropy"], **found)


def trained_credit(stored: StoredRollouts) -> Credit | None:
    """The stored credit if it is a mean over updates, else None. It is NaN in rollouts that no update trained."""
    times = [record.get("credit_updates") for record in stored.records]
    if not any(times):
        return None
    weights, score = (_table(stored.records, name, stored.signals.mask) for name in ("credit", "score"))
    without = torch.tensor([not count for count in times])[:, None] & stored.signals.mask
    return Credit(weights.masked_fill(without, math.nan), score.masked_fill(without, math.nan), 1.0)


def _common(values: set[Any]) -> Any:
    """The value that all records have, or None."""
    return next(iter(values)) if len(values) == 1 else None


def _table(records: list[dict[str, Any]], name: str, mask: Tensor) -> Tensor:
    """[B, T] float32; null is -inf for a log-prob, NaN for another signal."""
    table, null = torch.zeros(mask.shape), UNKNOWN.get(name, math.nan)
    for row, record in enumerate(records):
        values = record.get(name)
        if values:
            table[row, : len(values)] = torch.tensor([null if value is None else value for value in values])
    return table
