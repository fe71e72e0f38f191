"""The credit page of a run: its stored steps in one file of bounded size.

Owns which steps the page keeps and what it shows of each. A step is chosen by what came before it alone, so the page
that grows with a run and the page that is made of all its files show the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from dgpo_cli.config.gatings import BESIDE, gatings_by_label, with_controls
from dgpo_cli.config.groups import GatingConfig
from dgpo_cli.records.prompt_groups import is_mixed, rows_by_group
from dgpo_cli.records.regated import as_trained, lacking, regate
from dgpo_cli.records.stored_rollouts import StoredRollouts
from dgpo_cli.reporting.credit_page import PageFacts, PageStep, page_of_steps

MOST_STEPS = 12
STEP_ROLLOUTS = 128
STEP_TOKENS = 16_384  # of a step; a run's page holds about 200,000
NAME = re.compile(r"step_(\d+)\.jsonl")


def stored_steps(run: Path) -> dict[int, Path]:
    """The files of a run's stored steps, in order; empty if it has none."""
    found = ((NAME.fullmatch(file.name), file) for file in (run / "rollouts").glob("step_*.jsonl"))
    return dict(sorted((int(match[1]), file) for match, file in found if match))


def thinned(steps: Collection[int], most: int = MOST_STEPS) -> list[int]:
    """At most `most` of the steps: the first, the newest, and the older ones the further apart the older they are.

    Each step is added in order, and a step that was dropped does not come back.
    """
    kept: list[int] = []
    for step in sorted(steps):
        kept.append(step)
        if len(kept) > max(2, most):
            kept.remove(min(kept[1:-1], key=lambda old: _gap_without(kept, old) / (step - old)))
    return kept


def _gap_without(steps: list[int], step: int) -> int:
    """How far apart the neighbours of a step are."""
    place = steps.index(step)
    return steps[place + 1] - steps[place - 1]


def page_gatings(
    gating: GatingConfig, beside: Iterable[str] | None = None, config_dirs: Iterable[Path] = ()
) -> dict[str, GatingConfig]:
    """The run's gating first, others (None: the usual ones) and the controls of the first beside it."""
    dirs = list(config_dirs)
    return with_controls(gatings_by_label(gating, BESIDE if beside is None else beside, dirs), dirs)


def page_step(
    step: int, stored: StoredRollouts, gatings: Mapping[str, GatingConfig], shown: Collection[str]
) -> PageStep:
    """What the page shows of a step: whole groups, by each of the gatings whose signals are stored.

    `stored` is the whole step: percentiles and the noise gate are those of the batch, as in training. `shown`: the
    prompts that other steps show; a group of one of them comes first, then those with right and wrong answers.
    """
    gated = regate(stored, {name: item for name, item in gatings.items() if lacking(stored, item, name) is None})
    trained = as_trained(stored, next(iter(gatings.values())))
    gated = gated if trained is None else [trained, *gated]
    rows = _shown_rows(stored, shown)
    return PageStep(stored.only(rows), [item.only(rows) for item in gated], step, len(stored.records))


def _shown_rows(stored: StoredRollouts, shown: Collection[str]) -> list[int]:
    """Rows in the file's order, of at most STEP_ROLLOUTS rollouts and STEP_TOKENS tokens; one group in any case."""
    records = stored.records

    def place(rows: list[int]) -> tuple[bool, bool, bool]:
        again = str(records[rows[0]].get("prompt_id")) in shown
        mixed = is_mixed([records[row] for row in rows])
        return not again, not mixed, not any(records[row].get("advantage") for row in rows)

    chosen: list[int] = []
    tokens = 0
    for rows in sorted(rows_by_group(records), key=place):
        tokens += sum(len(records[row]["tokens"]) for row in rows)
        if chosen and (len(chosen) + len(rows) > STEP_ROLLOUTS or tokens > STEP_TOKENS):
            break
        chosen += rows
    return sorted(chosen)


def shown_prompts(steps: Mapping[int, PageStep]) -> set[str]:
    """The prompts that the page shows."""
    return {str(record.get("prompt_id")) for step in steps.values() for record in step.stored.records}


def run_page(
    source: str, steps: Mapping[int, PageStep], stored: Collection[int], *, live: bool = False, shade: str = "credit"
) -> str:
    """The page's HTML. `stored`: all steps that the run has stored; `live`: the run goes on, and writes it again."""
    left = len(stored) - len(steps)
    notes = [
        f"{len(steps)} of the run's {len(stored)} stored steps: the older they are, the fewer are kept. The others are "
        "in its folder rollouts/."
    ]
    facts = PageFacts(notes if left else [], live)
    return page_of_steps([steps[step] for step in sorted(steps)], source=source, shade=shade, facts=facts)
