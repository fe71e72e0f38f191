"""The credit view: rollouts with every token shaded by its credit, as one HTML file.

Owns what the page is told; how it looks and acts is in `pages/credit*`. Signals travel as float32, which is what
rollouts.jsonl holds, so a number on the page is the number of the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dgpo_cli
from dgpo_cli.records.prompt_groups import group_numbers, side
from dgpo_cli.records.regated import SHOWN, Gated
from dgpo_cli.records.stored_rollouts import StoredRollouts
from dgpo_cli.reporting.gating_rule import rule
from dgpo_cli.reporting.page import assemble, packed
from dgpo_cli.reporting.page_alternatives import PageAlternatives

SCRIPTS = [  # in this order: each may use those before it while the page is made
    *("credit_data.js", "credit_scale.js", "credit_choice.js", "credit_gatings.js", "credit_bar.js"),
    *("credit_groups.js", "credit_forks.js", "credit_cards.js", "credit_alternatives.js", "credit_token.js"),
    *("credit_search.js", "credit_steps.js", "credit_links.js", "credit_keys.js"),
]
SHADES = ("logprobs", "ref_logprobs", "entropy", "hellinger")  # the signals that the page shows by themselves


@dataclass(frozen=True)
class PageStep:
    """The rollouts that the page shows of a step of a run, or of a file that is no step's."""

    stored: StoredRollouts
    gated: list[Gated]
    step: int | None = None
    of: int | None = None  # rollouts of the step in all, if these are some of them


@dataclass(frozen=True)
class PageFacts:
    """What the page says of itself besides its rollouts."""

    notes: Sequence[str] = ()
    live: bool = False  # whether a run that goes on will write the page again


def credit_page(
    stored: StoredRollouts, gated: list[Gated], *, shade: str = "credit", facts: PageFacts = PageFacts()
) -> str:
    """The page's HTML. `shade`: the signal that it opens with."""
    return page_of_steps([PageStep(stored, gated)], source=stored.source, shade=shade, facts=facts)


def page_of_steps(steps: list[PageStep], *, source: str, shade: str = "credit", facts: PageFacts = PageFacts()) -> str:
    """The page of several steps of a run, in their order; it opens with the last."""
    return assemble(
        "credit.html",
        styles=["page.css", "credit.css"],
        scripts=["visible.js", *SCRIPTS],
        title=f"Token credit: {short_name(source)}",
        data=page_data(steps, source=source, shade=shade, facts=facts),
    )


def page_data(steps: list[PageStep], *, source: str, shade: str, facts: PageFacts) -> dict[str, Any]:
    """What the script reads. Lists of tokens and signals are those of all rollouts, one after another."""
    told = _Told()
    for number, step in enumerate(steps):
        told.add(number, step.stored)
    columns = _Columns([step.stored.signals.mask for step in steps])
    labels = _labels(steps)
    known = [name for name in SHADES if not any(name in step.stored.missing for step in steps)]
    return {
        "version": dgpo_cli.__version__,
        "source": short_name(source),
        "shade": shade,
        "notes": list(facts.notes),
        "live": facts.live,
        "steps": [_step_facts(step, labels) for step in steps],
        "prompts": [{"id": name, "text": text} for name, text in told.prompts.order],
        "rollouts": told.rollouts,
        "texts": [text for text, _ in told.spelled],
        "ids": [token for _, token in told.spelled],
        "tokens": packed(told.numbers, "u4" if told.wide else "u2"),
        "wide": told.wide,
        "signals": {name: columns.number([getattr(step.stored.signals, name) for step in steps]) for name in known},
        "gatings": [_gating(steps, label, columns) for label in labels],
        "columns": columns.order,
        "alternatives": told.alternatives.packed(wide=told.wide, has_reference="ref_logprobs" in known),
    }


def short_name(source: str) -> str:
    """The file and its folder: a page is passed on, and whose machine it comes from is nobody's business."""
    return "/".join(Path(source).parts[-2:])


@dataclass
class _Told:
    """Rollouts and their tokens, of all steps one after another."""

    rollouts: list[dict[str, Any]] = field(default_factory=list)
    spelled: dict[tuple[str, int | None], int] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)  # of each token, in `spelled`
    prompts: _Numbered = field(default_factory=lambda: _Numbered())
    alternatives: PageAlternatives = field(default_factory=PageAlternatives)
    groups: int = 0

    @property
    def wide(self) -> bool:
        return len(self.spelled) > 65_535

    def add(self, step: int, stored: StoredRollouts) -> None:
        groups = group_numbers(stored.records)
        for row, record in enumerate(stored.records):
            ids = record.get("token_ids") or []
            for place, text in enumerate(record["tokens"]):
                self.numbers.append(self._number((text, ids[place] if place < len(ids) else None)))
            prompt = self.prompts.number((str(record.get("prompt_id")), record.get("prompt") or ""))
            self.rollouts.append(
                {
                    "step": step,
                    "prompt": prompt,
                    "group": self.groups + groups[row],
                    "side": side(record),
                    "tokens": len(record["tokens"]),
                    "counted": int(stored.signals.mask[row].sum()),
                    **{
                        name: record.get(name) for name in ("sample", "reward", "correct", "advantage", "finish_reason")
                    },
                    **{name: _text(record.get(name)) for name in ("gold", "answer", "error")},
                }
            )
        self.groups += max(groups, default=-1) + 1
        self.alternatives.add(stored, self._number)

    def _number(self, token: tuple[str, int | None]) -> int:
        return self.spelled.setdefault(token, len(self.spelled))


def _step_facts(step: PageStep, labels: list[str]) -> dict[str, Any]:
    known = {item.label: item.diagnostics for item in step.gated}
    return {
        "step": step.step,
        "of": step.of,
        "scope": step.gated[0].scope if step.gated else "",
        "diagnostics": [
            {name.removeprefix("credit/"): known.get(label, {}).get(name) for name in SHOWN} for label in labels
        ],
    }


def _labels(steps: list[PageStep]) -> list[str]:
    """The gatings of all steps: one whose rollouts were not scored has none."""
    return list(dict.fromkeys(item.label for step in steps for item in step.gated))


def _gating(steps: list[PageStep], label: str, columns: _Columns) -> dict[str, Any]:
    """A gating over all steps. Its credit is not known of a step that lacks it."""
    each = [next((item for item in step.gated if item.label == label), None) for step in steps]
    known = next(item for item in each if item is not None)
    unknown = [torch.full(step.stored.signals.mask.shape, math.nan) for step in steps]
    pairs = list(zip(each, unknown, strict=True))
    return {
        "label": label,
        "rule": known.rule or rule(known.gating),
        "score": columns.number([nothing if item is None else item.credit.score for item, nothing in pairs]),
        "credit": columns.number([nothing if item is None else item.credit.weights for item, nothing in pairs]),
    }


class _Columns:
    """Values of the counted tokens, each list embedded once: a number where all are the same, else packed float32.

    Gatings share scores, and a score may be a signal: `paper`, `calibrated` and `random` have one score.
    """

    def __init__(self, masks: list[Tensor]) -> None:
        self._masks = masks
        self._numbered = _Numbered()

    @property
    def order(self) -> list[str | float]:
        return self._numbered.order

    def number(self, values: list[Tensor]) -> int:
        """`values`: [B, T] of each step."""
        counted = torch.cat([part[mask] for part, mask in zip(values, self._masks, strict=True)])
        same = counted.numel() > 0 and bool(torch.isfinite(counted[0])) and bool((counted == counted[0]).all())
        return self._numbered.number(float(counted[0]) if same else packed(counted.numpy(), "f4"))


class _Numbered:
    """Running numbers by first appearance."""

    def __init__(self) -> None:
        self.order: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._next = count()

    def number(self, key: Any) -> int:
        if key not in self._numbers:
            self._numbers[key] = next(self._next)
            self.order.append(key)
        return self._numbers[key]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
