"""Completions on a terminal, each token shaded by its credit or by another signal; without colours, marked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.text import Text
from torch import Tensor

from dgpo_cli.core.diagnostics import quantile
from dgpo_cli.records.prompt_groups import SIDES, rows_by_group, side
from dgpo_cli.records.regated import Gated
from dgpo_cli.records.stored_rollouts import StoredRollouts
from dgpo_cli.reporting.clean_console import CleanConsole
from dgpo_cli.terminal import visible

STRONGEST = 3
# Blue below 1, orange above: readable by the colour-blind, and 1 itself stays plain. Bounds are credits.
BELOW = ((0.5, "#ffffff on #1f4e9e"), (0.8, "#ffffff on #3f6fb5"), (0.98, "#000000 on #b8cdea"))
ABOVE = ((2.0, "#000000 on #e66101"), (1.25, "#000000 on #f4a259"), (1.02, "#000000 on #fbe0c3"))
# What has no centre: shares of the batch's 95th percentile.
RISING = ((0.75, "#ffffff on #5b3a94"), (0.5, "#000000 on #a98bd6"), (0.25, "#000000 on #ddd0ef"))
MARKS = {-3: "‹‹‹", -2: "‹‹", -1: "‹", 1: "›", 2: "››", 3: "›››"}
STORED = {"hellinger": "hellinger", "entropy": "entropy", "logprob": "logprobs", "ref_logprob": "ref_logprobs"}


@dataclass(frozen=True)
class Shading:
    """One line of tokens: values [B, T] and how strong each is, -3 to 3."""

    label: str
    values: Tensor
    kind: str  # "ratio" around 1 | "signed" around 0 | "rising" from 0
    top: float  # 95th percentile of the finite |value| in the batch

    def level(self, value: float) -> int:
        """-3 to 3; 0 stays plain."""
        if self.kind == "ratio":
            below = sum(value < bound for bound, _ in BELOW)
            return -below if below else sum(value > bound for bound, _ in ABOVE)
        strength = sum(abs(value) > share * self.top for share, _ in RISING) if self.top > 0 else 0
        return -strength if self.kind == "signed" and value < 0 else strength

    def style(self, level: int) -> str:
        if level == 0:
            return ""
        table = RISING if self.kind == "rising" else ABOVE if level > 0 else BELOW
        return table[3 - abs(level)][1]


def print_rollouts(
    stored: StoredRollouts,
    gated: list[Gated],
    console: CleanConsole,
    *,
    shade_by: str = "credit",
    prompts: int | None = None,
) -> None:
    """The rollouts of the first `prompts` prompts: verdict and tokens, one line of these for each gating it is about.

    With NO_COLOR, tokens carry marks in place of colours: `token››` above, `token‹‹` below, up to three.
    """
    shadings = _shadings(stored, gated, shade_by)
    console.print(Text(_legend(shadings, shade_by, marked=_marked(console)), style="dim"))
    groups = _shown_order(stored.records)
    for rows in groups[:prompts]:
        first = stored.records[rows[0]]
        console.print(Text(f"\nprompt {visible(str(first.get('prompt_id')))}", style="bold"))
        console.print(Text(visible(first.get("prompt") or "")))
        for row in rows:
            _print_rollout(stored, row, shadings, console)
    left = sum(len(rows) for rows in groups[prompts:]) if prompts is not None else 0
    if left:
        console.print(Text(f"\nand {left} more rollouts: limit=N shows those of N prompts, report=true all of them"))


def _shown_order(records: list[dict[str, Any]]) -> list[list[int]]:
    """Rows by group, right before wrong, the higher reward first: the order of the credit page too."""

    def place(row: int) -> tuple[int, float, int]:
        record = records[row]
        return SIDES.index(side(record)), -(record.get("reward") or 0.0), record.get("sample") or 0

    return [sorted(rows, key=place) for rows in rows_by_group(records)]


def _print_rollout(stored: StoredRollouts, row: int, shadings: list[Shading], console: CleanConsole) -> None:
    record, marked = stored.records[row], _marked(console)
    console.print(_headline(record))
    length = int(stored.signals.mask[row].sum())
    lines: list[Shading | None] = [*shadings] or [None]
    for shading in lines:
        values = [] if shading is None else shading.values[row, :length].tolist()
        console.print(_completion(record, shading, values, marked=marked))
        if shading is not None and values:
            console.print(Text(f"  {_strongest(record, shading, values)}", style="dim"))


def drawn(token: str) -> str:
    """A token as `visible`, and what has no ink drawn: a space as `·`, a line end as `⏎` and the break."""
    return visible(token).replace(" ", "·").replace("\n", "⏎\n") or "∅"


def _marked(console: CleanConsole) -> bool:
    return console.no_color or console.color_system is None


def _shadings(stored: StoredRollouts, gated: list[Gated], shade_by: str) -> list[Shading]:
    shadings = []
    for label, values, kind in _columns(stored, gated, shade_by):
        counted = values[stored.signals.mask]
        top = quantile(counted[torch.isfinite(counted)].abs(), 0.95)
        shadings.append(Shading(label, values, kind, top))
    return shadings


def _columns(stored: StoredRollouts, gated: list[Gated], shade_by: str) -> Iterator[tuple[str, Tensor, str]]:
    if shade_by == "logratio":
        if stored.signals.ref_logprobs is not None and "logprobs" not in stored.missing:
            yield "log p - log q", stored.signals.logprobs - stored.signals.ref_logprobs, "signed"
        return
    if shade_by in STORED:
        if STORED[shade_by] not in stored.missing:
            yield shade_by, getattr(stored.signals, STORED[shade_by]), "rising"
        return
    for item in gated:
        if shade_by == "credit":
            yield f"credit by {item.label}", item.credit.weights, "ratio"
        elif shade_by == "score":
            yield f"score by {item.label}", item.credit.score, "rising"
        else:
            yield f"credit x A by {item.label}", item.credit.weights * stored.advantages[:, None], "signed"


def _legend(shadings: list[Shading], shade_by: str, *, marked: bool) -> str:
    if not shadings:
        return f"{shade_by} is not known of these rollouts: tokens are shown plain"
    kind = shadings[0].kind
    if kind == "ratio":
        if marked:
            return (
                "credit: token‹ below 0.98, ‹‹ below 0.8, ‹‹‹ below 0.5; token› above 1.02, ›› above 1.25, ››› above 2"
            )
        return "credit: blue below 1 (0.98, 0.8, 0.5), orange above 1 (1.02, 1.25, 2)"
    mark = "› to ›››" if marked else "from pale to strong"
    sign = ", ‹ or blue where it is negative" if kind == "signed" else ""
    return f"{shade_by}: {mark} from 25%, 50%, 75% of {shadings[0].top:.3g}, its 95th percentile{sign}"


def _headline(record: dict[str, Any]) -> Text:
    correct = record.get("correct")
    if record.get("reward") is None:
        verdict = "not graded"
    else:
        mark = {True: "right", False: "wrong", None: "scored"}[correct]
        verdict = f"{mark}, reward {record['reward']:.3g}"
        if record.get("advantage") is not None:
            verdict += f", advantage {record['advantage']:+.3f}"
    cause = f" ({record['error']})" if record.get("error") else ""
    ending = ", cut at the limit" if record.get("finish_reason") == "length" else ""
    style = {True: "green", False: "red", None: "bold"}[correct]
    return Text(visible(f"  sample {record.get('sample')}: {verdict}{cause}{ending}"), style=style)


def _completion(record: dict[str, Any], shading: Shading | None, values: list[float], *, marked: bool) -> Text:
    text = Text("  ")
    for place, token in enumerate(record["tokens"]):
        level = shading.level(values[place]) if shading is not None and place < len(values) else 0
        ink = drawn(token)
        end = "\n" if ink.endswith("\n") else ""  # the last break comes after the mark, and carries no shade
        body = ink.removesuffix("\n")
        if marked:
            text.append(body + MARKS.get(level, ""))
        else:
            text.append(body, style=shading.style(level) if shading is not None else "")
        text.append(end)
    return text


def _strongest(record: dict[str, Any], shading: Shading, values: list[float]) -> str:
    known = {place: value for place, value in enumerate(values) if not math.isnan(value)}
    if not known:
        return f"{shading.label}: not known"
    size = known if shading.kind == "ratio" else {place: abs(value) for place, value in known.items()}
    order = sorted(known, key=lambda place: (-size[place], place))[:STRONGEST]
    named = ", ".join(f"{visible(record['tokens'][place])!r} at {place} ({values[place]:.3g})" for place in order)
    return f"{shading.label}: {min(known.values()):.3g} to {max(known.values()):.3g}; most on {named}"
