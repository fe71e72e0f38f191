"""What a step shows beside its numbers, bounded: a table of some completions, the credit page of some more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.compose import run_folder
from dgpo_cli.config.gatings import BESIDE, gatings_by_label
from dgpo_cli.config.groups import GatingConfig
from dgpo_cli.records.regated import as_trained, lacking, regate
from dgpo_cli.records.stored_rollouts import rollouts_at_hand
from dgpo_cli.reporting.credit_page import credit_page

TABLE_ROWS = 16
TABLE_CHARACTERS = 2000  # of a prompt or completion; the middle is left out
PAGE_ROLLOUTS = 64
PAGE_TOKENS = 65_536
COLUMNS = (
    *("step", "prompt_id", "sample", "reward", "correct", "advantage", "tokens", "finish_reason"),
    *("credit_max", "credit_max_token", "prompt", "completion", "gold"),
)


def run_name(config: TrainConfig) -> str:
    """`dgpo-paper-tiny-digit_chain-0`: algorithm, gating, model, data and seed."""
    model, data = config.model, config.data
    model_name = Path(str(model.path)).name if model.name == "path" and model.path else model.name
    data_name = Path(str(data.path)).stem if data.name == "file" and data.path else data.name
    return f"{config.algo.name}-{config.gating.name}-{model_name}-{data_name}-{config.seed}"


def shown_name(config: TrainConfig, folder: Path, started: str) -> str:
    """The name of a run in W&B. The same run made twice is told apart: by the number of its folder, or by its start.

    started: as in run.json, `2026-11-23T09:10:00+0000`.
    """
    if config.name is None:
        return f"{run_name(config)}-{started[5:10].replace('-', '')}-{started[11:19].replace(':', '')}"
    number = re.fullmatch(rf"{re.escape(run_folder(config.name, ''))}(_\d+)", folder.name)
    return config.name + (number[1] if number else "")


def completion_rows(step: int, records: list[dict[str, Any]]) -> list[list[Any]]:
    """At most `TABLE_ROWS` rows of `COLUMNS`, spread evenly over the step's rollouts."""
    count = min(TABLE_ROWS, len(records))
    return [_row(step, records[place * len(records) // count]) for place in range(count)]


def _row(step: int, record: dict[str, Any]) -> list[Any]:
    credit = record.get("credit") or []
    peak = max(range(len(credit)), key=credit.__getitem__) if credit else None
    facts = {
        **record,
        "step": step,
        "tokens": len(record["tokens"]),
        "credit_max": None if peak is None else credit[peak],
        "credit_max_token": None if peak is None else record["tokens"][peak],
        **{name: _shortened(str(record.get(name) or "")) for name in ("prompt", "completion", "gold")},
    }
    return [facts.get(column) for column in COLUMNS]


def _shortened(text: str) -> str:
    if len(text) <= TABLE_CHARACTERS:
        return text
    half = TABLE_CHARACTERS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"


def step_page(step: int, records: list[dict[str, Any]], gating: GatingConfig) -> str:
    """The credit page of the step's first rollouts, by the run's gating and the usual ones beside it.

    `records` are all of the step: percentiles and the noise gate are those of the batch, as in training.
    """
    shown = _page_rows(records)
    source = f"step {step}" if shown == len(records) else f"step {step}, the first {shown} of {len(records)} rollouts"
    stored = rollouts_at_hand(records, source)
    gatings = gatings_by_label(gating, BESIDE)
    gated = regate(stored, {name: item for name, item in gatings.items() if lacking(stored, item, name) is None})
    trained = as_trained(stored, gating)
    gated = gated if trained is None else [trained, *gated]
    rows = list(range(shown))
    return credit_page(stored.only(rows), [item.only(rows) for item in gated])


def _page_rows(records: list[dict[str, Any]]) -> int:
    """At most `PAGE_ROLLOUTS`, of at most `PAGE_TOKENS` together; one in any case."""
    tokens = 0
    for row, record in enumerate(records[:PAGE_ROLLOUTS]):
        tokens += len(record["tokens"])
        if row and tokens > PAGE_TOKENS:
            return row
    return min(len(records), PAGE_ROLLOUTS)
