"""Credit pages of made-up rollouts, for tests that open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from record_factory import made_up, write_rollouts

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.records.regated import Gated, regate
from dgpo_cli.records.stored_rollouts import StoredRollouts, read_stored
from dgpo_cli.reporting.credit_page import credit_page

GATINGS = {name: gating_option(name) for name in ("paper", "calibrated")}


def stored(folder: Path, records: list[dict[str, Any]]) -> StoredRollouts:
    return read_stored(write_rollouts(folder / "rollouts.jsonl", records))


def write_page(folder: Path, records: list[dict[str, Any]]) -> tuple[Path, StoredRollouts, list[Gated]]:
    batch = stored(folder, records)
    gated = regate(batch, GATINGS)
    file = folder / "report.html"
    # As the commands write it: a lone surrogate is its own escape.
    file.write_text(credit_page(batch, gated), encoding="utf-8", errors="backslashreplace")
    return file, batch, gated


def group(prompt: str, *completions: tuple[str, bool], signal: bool = True) -> list[dict[str, Any]]:
    """Records of one prompt: each completion's tokens, divided by `|`, and whether it is right.

    Distances and entropies are made up by place, so that what begins alike is scored alike.
    """
    records = []
    for sample, (text, correct) in enumerate(completions):
        tokens = text.split("|")
        [record] = made_up(1, len(tokens), texts=tokens, group_size=1)
        record |= {"prompt_id": prompt, "prompt": f"{prompt}?", "sample": sample, "control_seed": sample}
        record |= {"correct": correct, "reward": float(correct), "advantage": (1.0 if correct else -1.0) * signal}
        ids = {
            token: place for place, token in enumerate(sorted({t for one, _ in completions for t in one.split("|")}))
        }
        records.append(record | {"token_ids": [ids[token] for token in tokens]})
    return records
