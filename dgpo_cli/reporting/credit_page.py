"""The credit view: rollouts with every token shaded by its credit, as one HTML file.

Owns what the page is told; how it looks and acts is in `pages/credit.*`. Signals travel as float32, which is what
rollouts.jsonl holds, so a number on the page is the number of the file.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dgpo_cli
from dgpo_cli.config.gating_needs import masks_tokens
from dgpo_cli.config.groups import Control, Form, GatingConfig, Normalizer, Sign, Signal
from dgpo_cli.core.signals import SIGNALS as CREDIT_SIGNALS
from dgpo_cli.records.prompt_groups import group_numbers, side
from dgpo_cli.records.regated import SHOWN, Gated
from dgpo_cli.records.stored_rollouts import StoredRollouts
from dgpo_cli.reporting.page import assemble, packed

SCRIPTS = [
    f"credit_{part}.js"  # in this order: each may use those before it while the page is made
    for part in ("data", "scale", "choice", "gatings", "bar", "groups", "cards", "token", "search", "keys")
]
SHADES = ("logprobs", "ref_logprobs", "entropy", "hellinger")  # the signals that the page shows by themselves


def credit_page(stored: StoredRollouts, gated: list[Gated], *, shade: str = "credit") -> str:
    """The page's HTML. `shade`: the signal that it opens with."""
    return assemble(
        "credit.html",
        styles=["page.css", "credit.css"],
        scripts=["visible.js", *SCRIPTS],
        title=f"Token credit: {short_name(stored.source)}",
        data=page_data(stored, gated, shade=shade),
    )


def page_data(stored: StoredRollouts, gated: list[Gated], *, shade: str) -> dict[str, Any]:
    """What the script reads. Lists of tokens and signals are those of all rollouts, one after another."""
    spelled: dict[tuple[str, int | None], int] = {}
    numbers, rollouts = [], []
    prompts, groups = _Numbered(), group_numbers(stored.records)
    for row, record in enumerate(stored.records):
        ids = record.get("token_ids") or []
        for place, text in enumerate(record["tokens"]):
            token = (text, ids[place] if place < len(ids) else None)
            numbers.append(spelled.setdefault(token, len(spelled)))
        prompt = prompts.number((str(record.get("prompt_id")), record.get("prompt") or ""))
        rollouts.append(
            {
                "prompt": prompt,
                "group": groups[row],
                "side": side(record),
                "tokens": len(record["tokens"]),
                "counted": int(stored.signals.mask[row].sum()),
                **{name: record.get(name) for name in ("sample", "reward", "correct", "advantage", "finish_reason")},
                **{name: _text(record.get(name)) for name in ("gold", "answer", "error")},
            }
        )
    columns = _Columns(stored.signals.mask)
    return {
        "version": dgpo_cli.__version__,
        "source": short_name(stored.source),
        "shade": shade,
        "prompts": [{"id": name, "text": text} for name, text in prompts.order],
        "rollouts": rollouts,
        "texts": [text for text, _ in spelled],
        "ids": [token for _, token in spelled],
        "tokens": packed(numbers, "u4" if len(spelled) > 65_535 else "u2"),
        "wide": len(spelled) > 65_535,
        "signals": {
            name: columns.number(getattr(stored.signals, name)) for name in SHADES if name not in stored.missing
        },
        "gatings": [
            {
                "label": item.label,
                "rule": item.rule or rule(item.gating),
                "diagnostics": {name.removeprefix("credit/"): item.diagnostics.get(name) for name in SHOWN},
                "score": columns.number(item.credit.score),
                "credit": columns.number(item.credit.weights),
            }
            for item in gated
        ],
        "columns": columns.order,
        "scope": gated[0].scope if gated else "",
    }


def short_name(source: str) -> str:
    """The file and its folder: a page is passed on, and whose machine it comes from is nobody's business."""
    return "/".join(Path(source).parts[-2:])


def rule(gating: GatingConfig) -> str:
    """A gating as a formula."""
    if gating.signal is Signal.none:
        return "w = 1"
    kappa = gating.entropy_exponent
    score = CREDIT_SIGNALS[gating.signal.value].symbol + (
        f" · H^{kappa:g}" if kappa not in (0, 1) else " · H" if kappa else ""
    )
    if gating.times_advantage:
        score += " · |ρ A|"
    extras = (
        [f"clipped to [{gating.clip[0]:g}, {gating.clip[1]:g}]"] if gating.clip and not masks_tokens(gating) else []
    )
    extras += ["noise gate"] if gating.noise_gate and not masks_tokens(gating) else []
    extras += [f"only where A {SIGNS[gating.sign]} 0, else 1"] if gating.sign in SIGNS else []
    extras += [f"control: {CONTROLLED[gating.control]}"] if gating.control is not Control.none else []
    return "; ".join([_weights(gating, score), *extras])


SIGNS = {Sign.positive: ">", Sign.negative: "<"}
CONTROLLED = {Control.permute: "permuted", Control.misplace: "misplaced", Control.invert: "inverted"}


def _weights(gating: GatingConfig, score: str) -> str:
    """The weights as a formula of the score."""
    if gating.top_fraction is not None:
        return f"w = 1 / share on the top {gating.top_fraction:.0%} by {score}, else 0"
    if gating.band is not None:
        return f"w = n / n_kept if {gating.band[0]:g} ≤ {score} ≤ {gating.band[1]:g}, else 0"
    score = {
        Normalizer.none: score,
        Normalizer.saturate: f"(s / (s + p80), s = {score})",
        Normalizer.rank: f"(rank of {score})",
        Normalizer.window: f"({score} against the {gating.window} tokens around it)",
    }[gating.normalizer]
    if gating.form is Form.sigmoid:
        return f"w = (1 + {gating.strength:g} (σ({score} / {gating.temperature:g}) − ½)) / mean"
    if gating.form is Form.linear:
        return f"w = (1 + {gating.strength:g} {score}) / mean"
    return f"w = T softmax({score} / {gating.temperature:g})"


class _Columns:
    """Values of the counted tokens, each list embedded once: a number where all are the same, else packed float32.

    Gatings share scores, and a score may be a signal: `paper`, `calibrated` and `random` have one score.
    """

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask
        self._numbered = _Numbered()

    @property
    def order(self) -> list[str | float]:
        return self._numbered.order

    def number(self, values: Tensor) -> int:
        counted = values[self._mask]
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
