"""The panel of a training run: what the rows of metrics.jsonl so far say, in as many lines as the terminal has.

Pure: rows and a size in, lines out. Each line is cut to the width and stands alone, so a small terminal shows the most
important ones and nothing ever wraps. Beside accuracy, groups, length, entropy and time it makes visible what the paper
claims: that KL explodes where the Hellinger distance is bounded by 1, and where credit goes by distance and entropy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from dgpo_cli.reporting.tables import interval, score_of
from dgpo_cli.terminal import visible

Row = dict[str, Any]

LABEL = 11  # columns of a line's name
FIGURE = 9  # columns of the figure after it
REMARK = 30  # columns kept for what stands after a curve
LONGEST_CURVE = 48
WIDE = 120  # from here on two columns of lines
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
HELD_OUT_LINES = 3  # benchmarks
PHASES = ("rollout", "reward", "score", "train")
CELLS = (("high", "high"), ("high", "low"), ("low", "high"), ("low", "low"))  # d, H; high: the batch's upper fifth
PAPER_SAYS = {("high", "high"): "the paper's breakthrough", ("high", "low"): "the paper's hallucination"}
SPREAD_ESS = 0.9  # the curve of credit/ess reaches down to here at least, so that 0.9999 does not look like a fall
TREND = 10  # steps that a change is told over


@dataclass(frozen=True)
class Line:
    """One line of the panel; those with the lowest rank stay longest when there is no room."""

    text: Text
    rank: int


@dataclass(frozen=True)
class About:
    """What is known beside the rows of steps."""

    now: str = ""  # what is being done
    folder: str = ""
    evaluations: Sequence[Row] = ()  # rows of eval.jsonl


def panel_lines(
    rows: Sequence[Row], about: About | None = None, *, width: int, height: int, ascii_only: bool = False
) -> list[Text]:
    """At most `height` lines of at most `width` columns about the run so far; two columns of them where it is wide."""
    if height < 1:
        return []
    pen = _Pen(rows, ascii_only, width if width < WIDE else (width - 3) // 2)
    head = [] if about is None else _head(pen, about)
    if not rows:
        return _fitting(head, height)
    left, right = [*head, *_story(pen)], _paper(pen)
    if width < WIDE:
        return _fitting(left + right, height)
    first, second = _fitting(left, height), _fitting(right, height)
    return [
        _beside(first[i] if i < len(first) else Text(), second[i] if i < len(second) else Text(), pen.width)
        for i in range(max(len(first), len(second)))
    ]


def sparkline(
    values: Sequence[float | None],
    width: int,
    *,
    low: float,
    high: float,
    peaks: bool = False,
    ascii_only: bool = False,
) -> str:
    """Values as blocks between low and high, at most `width` of them; a gap for a stretch without any.

    Each block is the mean of its stretch, or with `peaks` its highest value: the mean of a maximum would hide it.
    """
    blocks = PLAIN_BLOCKS if ascii_only else BLOCKS
    count = min(width, len(values))
    drawn = []
    for place in range(count):
        stretch = values[place * len(values) // count : (place + 1) * len(values) // count]
        known = [value for value in stretch if value is not None and math.isfinite(value)]
        if not known:
            drawn.append(" ")
            continue
        value = max(known) if peaks else sum(known) / len(known)
        share = (value - low) / (high - low) if high > low else 0.0
        drawn.append(blocks[max(0, min(len(blocks) - 1, int(share * len(blocks))))])
    return "".join(drawn)


@dataclass(frozen=True)
class _Pen:
    """Draws lines of one width from the rows."""

    rows: Sequence[Row]
    ascii_only: bool
    width: int

    def now(self, key: str) -> float | None:
        """The newest finite value; a step without signal has none of its own."""
        return next((value for value in reversed(self.series(key)) if value is not None), None)

    def last(self, key: str) -> float:
        return self.series(key)[-1] or 0.0

    def lowest(self, key: str) -> float:
        return min((value for value in self.series(key) if value is not None), default=math.inf)

    def series(self, key: str) -> list[float | None]:
        found = [row.get(key) for row in self.rows]
        return [value if isinstance(value, int | float) and math.isfinite(value) else None for value in found]

    def curve(self, key: str, *, low: float | None = None, high: float | None = None) -> str:
        """The sparkline of a metric, between its own extremes unless others are given."""
        values = self.series(key)
        known = [value for value in values if value is not None]
        room = max(0, min(LONGEST_CURVE, self.width - LABEL - FIGURE - REMARK))
        return sparkline(
            values,
            room,
            low=min(known, default=0.0) if low is None else low,
            high=max(known, default=1.0) if high is None else high,
            peaks=key.endswith("/max"),
            ascii_only=self.ascii_only,
        ).ljust(room)

    def line(self, rank: int, name: str, figure: str, *rest: str | tuple[str, str]) -> Line:
        text = Text(no_wrap=True)
        text.append(name.ljust(LABEL), style="bold")
        text.append(f"{figure:>{FIGURE}} ")
        for part in rest:
            text.append(part) if isinstance(part, str) else text.append(part[0], style=part[1])
        text.truncate(self.width, overflow="ellipsis")
        return Line(text, rank)

    def plain(self, rank: int, name: str, words: str) -> Line:
        """A line without a figure. The words may come from outside."""
        text = Text(no_wrap=True)
        text.append(name.ljust(LABEL), style="bold").append(visible(words, ""))
        text.truncate(self.width, overflow="ellipsis")
        return Line(text, rank)


def _head(pen: _Pen, about: About) -> list[Line]:
    """What goes on, where, and how well the model does on held-out problems."""
    names = list(dict.fromkeys(row["benchmark"] for row in about.evaluations))
    held_out = [
        _held_out(pen, [row for row in about.evaluations if row["benchmark"] == name], name if len(names) > 1 else "")
        for name in names[:HELD_OUT_LINES]
    ]
    lines = [pen.plain(2, "now", about.now or "-"), *held_out]
    return [*lines, pen.plain(13, "run", about.folder)] if about.folder else lines


def _held_out(pen: _Pen, rows: Sequence[Row], name: str) -> Line:
    """The latest evaluation on a benchmark with its interval, and the best one."""
    latest, known = rows[-1], [(score, row) for row in rows if (score := score_of(row)) is not None]
    text = f"after step {latest['step']}"
    if latest["avg_at_k"] is not None:
        text = f"{interval(latest['avg_at_k'].get('ci95'))} {text}"
    if len(known) > 1:
        score, best = max(known, key=lambda one: one[0])
        text += ", the best" if best is latest else f"; best {_score(best, score)} after {best['step']}"
    named = f"{visible(name, '')} " if name else ""
    return pen.line(1, "held out", _score(latest, score_of(latest)), named + text)


def _score(row: Row, score: float | None) -> str:
    return _figure(score) if row["avg_at_k"] is None else _percent(score)


def _story(pen: _Pen) -> list[Line]:
    """Whether it learns, and from what."""
    scale = _scale_of_reward(pen)
    trend = _trend(pen)
    lines = [
        pen.line(
            0,
            "accuracy",
            _percent(pen.now("accuracy")),
            _blue(pen.curve("accuracy", low=0, high=1)),
            f" {scale}, {trend.replace(' points', '')}" if scale and trend else f" {scale or trend}",
        )
    ]
    if not scale:
        lines.append(pen.line(4, "reward", _figure(pen.now("reward/mean")), _blue(pen.curve("reward/mean"))))
    lr = _figure(pen.now("lr"))
    return [
        *lines,
        _groups(pen),
        pen.line(
            6,
            "length",
            _figure(pen.now("completion/length_mean")),
            _blue(pen.curve("completion/length_mean", low=0)),
            f" max {pen.last('completion/length_max'):.0f}, {pen.last('completion/truncated'):.0%} cut off",
        ),
        pen.line(5, "entropy", _figure(pen.now("entropy/mean")), _blue(pen.curve("entropy/mean", low=0)), " nats"),
        pen.line(
            7,
            "credit/ess",
            _figure(pen.now("credit/ess"), 5),
            _blue(pen.curve("credit/ess", low=min(SPREAD_ESS, pen.lowest("credit/ess")), high=1)),
            " 1 = uniform",
        ),
        pen.line(12, "lr", lr, _blue(pen.curve("lr", low=0)), " learning rate"),
        _time(pen),
    ]


def _scale_of_reward(pen: _Pen) -> str:
    """How the reward follows from the accuracy, if it is the same curve in all rows; empty if it is one of its own."""
    rewards, accuracies = pen.series("reward/mean"), pen.series("accuracy")
    scales = (("= reward", 1.0, 0.0), ("reward +-1" if pen.ascii_only else "reward ±1", 2.0, -1.0))
    for text, factor, offset in scales:
        expected = [None if right is None else factor * right + offset for right in accuracies]
        if all(_same(reward, value) for reward, value in zip(rewards, expected, strict=True)):
            return text if pen.now("accuracy") is not None else ""
    return ""


def _same(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else math.isclose(a, b, abs_tol=1e-6)


def _paper(pen: _Pen) -> list[Line]:
    """KL against Hellinger, the gradients of both terms, the four cells; without what is not measured."""
    lines = []
    if pen.now("kl") is not None:
        curve = pen.curve("kl", low=0)
        lines.append(pen.line(9, "kl", _figure(pen.now("kl")), _blue(curve), " nats, mean of tokens"))
    if pen.now("kl/max") is not None:
        highest = max(value for value in pen.series("kl/max") if value is not None)
        curve = pen.curve("kl/max", low=0)
        lines.append(pen.line(9, "kl/max", _figure(pen.now("kl/max")), _orange(curve), f" highest {highest:.3g}"))
    if pen.now("hellinger/max") is not None:
        curve = pen.curve("hellinger/max", low=0, high=1)
        lines.append(pen.line(10, "hellinger", _figure(pen.now("hellinger/max")), _blue(curve), " max; bounded by 1"))
    if pen.now("grad_norm/policy") is not None:
        kl = pen.now("grad_norm/kl")
        beside = " policy term" if kl is None else f" policy term, KL term {_figure(kl)}"
        curve = pen.curve("grad_norm/policy", low=0)
        lines.append(pen.line(11, "gradient", _figure(pen.now("grad_norm/policy")), _blue(curve), beside))
    elif pen.now("grad_norm") is not None:
        lines.append(
            pen.line(11, "gradient", _figure(pen.now("grad_norm")), _blue(pen.curve("grad_norm", low=0)), " norm")
        )
    return lines + _cells(pen)


def _groups(pen: _Pen) -> Line:
    """The share of groups with mixed rewards; the others as all right and all wrong, if that is all they are."""
    right, wrong = pen.last("groups/all_correct"), pen.last("groups/all_wrong")
    known = pen.series("groups/all_correct")[-1] is not None
    equal = pen.series("groups/no_spread")[-1]
    equal = right + wrong if equal is None else equal  # a row of an older version
    room = max(0, min(LONGEST_CURVE, pen.width - LABEL - FIGURE - REMARK))
    full, half, none = ("#", "=", ".") if pen.ascii_only else ("█", "▒", "░")
    if known and math.isclose(equal, right + wrong, abs_tol=1e-9):
        first, last, what = round(room * right), round(room * wrong), f"all right {right:.0%}, all wrong {wrong:.0%}"
    else:
        first, last, what = 0, round(room * equal), f"equal rewards {equal:.0%}"
    bar = full * first + half * max(0, room - first - last) + none * last
    return pen.line(3, "groups", f"{max(0.0, 1 - equal):.0%} mix", _blue(bar), f" {what}")


def _time(pen: _Pen) -> Line:
    step = pen.last("seconds/step") or math.inf
    shares = [(name, pen.last(f"seconds/{name}") / step) for name in PHASES]
    parts = [f"{name} {share:.0%}" for name, share in shares if share >= 0.005]
    parts.append(f"{pen.last('tokens/per_second'):.0f} tokens/s")
    return pen.line(8, "step time", _figure(pen.now("seconds/step")) + " s", ", ".join(parts))


def _cells(pen: _Pen) -> list[Line]:
    """Shares of tokens and of credit by distance d and entropy H, for completions with A > 0 and A < 0."""
    row = next((row for row in reversed(pen.rows) if any(key.startswith("cells/") for key in row)), None)
    if row is None:
        return []
    arrow = ">" if pen.ascii_only else "→"
    head = Text("d, H".ljust(LABEL), style="bold", no_wrap=True)
    head.append(f"{'A > 0':<{FIGURE + 3}} {'A < 0':<{FIGURE + 3}} % of tokens {arrow} of credit", style="not bold")
    head.truncate(pen.width, overflow="ellipsis")
    lines = [Line(head, 14)]
    for distance, entropy in CELLS:
        figures = []
        for sign in ("pos", "neg"):
            name = f"cells/{distance}_d_{entropy}_h"
            shares = [row.get(f"{name}/{what}_{sign}") for what in ("tokens", "credit")]
            known = [f"{100 * share:.1f}" for share in shares if share is not None]
            figures.append(f"{arrow.join(known)}%" if len(known) == 2 else "-")
        text = Text(f"{distance}, {entropy}".ljust(LABEL), no_wrap=True)
        text.append(f"{figures[0]:<{FIGURE + 3}} {figures[1]:<{FIGURE + 3}} {PAPER_SAYS.get((distance, entropy), '')}")
        text.truncate(pen.width, overflow="ellipsis")
        lines.append(Line(text, 14))
    return lines


def _trend(pen: _Pen) -> str:
    """How accuracy moved, from the steps before the last ten to those."""
    known = [value for value in pen.series("accuracy") if value is not None]
    if len(known) < 2 * TREND:
        return ""
    recent, before = known[-TREND:], known[-2 * TREND : -TREND]
    return f"{100 * (sum(recent) - sum(before)) / TREND:+.1f} points in {TREND} steps"


def _fitting(lines: list[Line], height: int) -> list[Text]:
    """The most important lines, in their own order; lines of one rank go together."""
    kept = sorted(lines, key=lambda line: line.rank)
    while len(kept) > height:
        worst = kept[-1].rank
        kept = [line for line in kept if line.rank < worst]
    ranks = {line.rank for line in kept}
    return [line.text for line in lines if line.rank in ranks]


def _beside(left: Text, right: Text, width: int) -> Text:
    joined = left.copy()
    joined.pad_right(width - joined.cell_len + 3)
    return joined.append_text(right)


def _blue(drawn: str) -> tuple[str, str]:
    return drawn, "blue"


def _orange(drawn: str) -> tuple[str, str]:
    return drawn, "dark_orange"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _figure(value: float | None, digits: int = 3) -> str:
    """Short: 0.0143, 30.1, 2.9e-11."""
    return "-" if value is None else f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:.2g}"
