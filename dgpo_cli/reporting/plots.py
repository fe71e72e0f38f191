"""Pictures of a comparison, drawn by matplotlib (imported here alone): PNG files for print, SVG for the page.

Colours are Okabe and Ito's, which people of any colour vision tell apart; line style tells the same in grey print.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dgpo_cli.reporting.comparison import Pair
from dgpo_cli.reporting.learning_curves import AXES, HELD_OUT, Axis, Curve, Curves, Metric, drawn_metrics
from dgpo_cli.reporting.tables import confidence, points
from dgpo_cli.terminal import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES: Any = ("-", "--", "-.", ":")
DASHES: Any = ("-", (0, (4, 3)), (0, (1.2, 2)), (0, (7, 3, 1.5, 3)))  # with gaps that show what lies below
THINNEST, WIDEST, STEP = 1.5, 7.0, 1.3  # points, of the line on top and of the lowest; more for each line below
INK = "#0b0c0d"  # drawn as it is in PNG; in SVG the page's own colour of text takes its place
MOST_BANDS = 6  # with more sides the bands would hide each other
VERDICTS = {  # marker, colour
    "better": ("^", COLOURS[0]),
    "worse": ("v", COLOURS[1]),
    "indistinguishable": ("o", "#808080"),
    "not enough seeds": ("x", "#808080"),
}
_SETTINGS: Any = {  # matplotlib types every key of its own; versions differ in which
    "font.size": 9,
    "text.parse_math": False,  # a run's name may hold any character
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "dgpo",
}


def colour(number: int) -> str:
    """Of the side with that place, in every picture and table."""
    return COLOURS[number % len(COLOURS)]


def curves_png(curves: Curves) -> bytes:
    """A PNG of all metrics (rows) against all axes that have a curve (columns)."""
    metrics, axes = drawn_metrics(curves), drawn_axes(curves)
    names = _legend(curves)
    columns = max(1, min(len(names), 130 // (max(map(len, names.values()), default=0) + 8)))
    top = 0.45 + 0.2 * -(-len(names) // columns)  # inches, for as many lines of names as it takes
    with drawing() as new_figure:
        figure = new_figure(3.7 * max(2, len(axes)), 0.5 + top + 2.1 * len(metrics))
        grid = figure.subplots(len(metrics), len(axes), squeeze=False, sharex="col", sharey="row")
        for row, metric in enumerate(metrics):
            for column, axis in enumerate(axes):
                _draw_panel(grid[row][column], curves.get((axis.name, metric.key), []), metric, axis, len(names))
                if column:
                    grid[row][column].set_ylabel("")
                if row < len(metrics) - 1:
                    grid[row][column].set_xlabel("")
        _add_legend(figure, names, columns)
        _set_margins(figure, top=top, between=(0.06, 0.28))
        return png(figure)


def curves_svg(curves: Curves, axis: Axis) -> str:
    """All metrics against one axis, for the page: hovering names a curve, and a point leads to its evidence."""
    metrics = [metric for metric in drawn_metrics(curves) if (axis.name, metric.key) in curves]
    titles: list[str] = []
    with drawing() as new_figure:
        rows = (len(metrics) + 2) // 3
        figure = new_figure(11, 2.6 * rows)
        panels = list(figure.subplots(rows, 3, squeeze=False).flat)
        for panel, metric in zip(panels, metrics, strict=False):
            _draw_panel(panel, curves[axis.name, metric.key], metric, axis, len(_legend(curves)), titles)
        for panel in panels[len(metrics) :]:
            panel.set_axis_off()
        _set_margins(figure, top=0.35, between=(0.3, 0.55))
        return _titled(_svg(figure, f"learning curves at {axis.title}"), titles)


def drawn_axes(curves: Curves) -> list[Axis]:
    """Those that any curve stands against."""
    return [axis for axis in AXES if any(name == axis.name for name, _ in curves)]


def evidence_id(side: int, step: int) -> str:
    """Of what the page shows when a point of a curve is chosen."""
    return f"at-{side}-{step}"


def pair_id(place: int) -> str:
    """Of a pair's problems, by its place."""
    return f"pair-{place}"


def differences_png(pairs: Sequence[Pair], names: Sequence[str]) -> bytes:
    """A PNG of every pair's difference with its interval."""
    with drawing() as new_figure:
        return png(_differences(new_figure, pairs, names, linked=False))


def differences_svg(pairs: Sequence[Pair], names: Sequence[str]) -> str:
    """The same for the page."""
    with drawing() as new_figure:
        figure = _differences(new_figure, pairs, names, linked=True)
        drawn = _svg(figure, "differences with the intervals that decide the verdicts")
        titles = [
            f"{' '.join(name.split())}: {pair.verdict}, {points(pair.result.difference)} points"
            for name, pair in zip(names, pairs, strict=True)
        ]
        return _titled(drawn, titles)


def _differences(new_figure: Any, pairs: Sequence[Pair], names: Sequence[str], *, linked: bool) -> Figure:
    figure = new_figure(9, 1.2 + 0.5 * len(pairs))
    figure.set_layout_engine("constrained")  # names are of any length
    panel = figure.subplots()
    for place, pair in enumerate(pairs):
        result = pair.result
        marker, hue = VERDICTS[pair.verdict]
        if result.minimum_detectable is not None:
            width = 200 * result.minimum_detectable
            panel.barh(place, width, left=-width / 2, height=0.7, color=INK, alpha=0.09, linewidth=0)
        if pair.decision.interval is not None:
            panel.plot([100 * end for end in pair.decision.interval], [place, place], color=hue, linewidth=2.2)
        dot = panel.scatter([100 * result.difference], [place], marker=marker, color=hue, s=64, zorder=3)
        dot.set_urls([f"#{pair_id(place)}|{place}"] if linked else None)
    panel.axvline(0, color=INK, linewidth=1)
    panel.set_yticks(range(len(pairs)), names)
    panel.set_ylim(len(pairs) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    levels = [pair.decision.level for pair in pairs]
    shown = " to ".join(dict.fromkeys((confidence(max(levels)), confidence(min(levels)))))
    panel.set_xlabel(f"points, b minus a, with {shown} interval\non the grey ground: often missed")
    return figure  # type: ignore[no-any-return]


def _draw_panel(
    panel: Axes, curves: Sequence[Curve], metric: Metric, axis: Axis, sides: int, titles: list[str] | None = None
) -> None:
    """titles: of the page, that gets what hovering says of each curve and point, in the order of the drawing."""
    for curve in curves:
        band, hue = curve.band, colour(curve.number)
        if (band.runs > 1 or metric.key.startswith(HELD_OUT)) and len(curves) <= MOST_BANDS:
            panel.fill_between(band.x, band.low, band.high, color=hue, alpha=0.16, linewidth=0)
    for curve in curves:
        _draw_curve(panel, curve, metric, sides, titles)
    panel.set_title(drawable(metric.title, 40), fontsize=10, loc="left", fontweight="bold")
    panel.set_ylabel(metric.unit)
    panel.set_xlabel(axis.title)
    panel.ticklabel_format(useOffset=False)
    panel.locator_params(nbins=5)


def _draw_curve(panel: Axes, curve: Curve, metric: Metric, sides: int, titles: list[str] | None) -> None:
    """A line that is thinner than those before it and lies on them, so that equal curves are all seen."""
    band, hue, held_out = curve.band, colour(curve.number), metric.key.startswith(HELD_OUT)
    width = line_width(curve.number, sides) if curve.run is None else 1.0
    marker = "o" if len(band.x) == 1 or held_out else ""
    style = DASHES[curve.number % len(DASHES)]
    order = 2 + curve.number / 1000
    [line] = panel.plot(
        band.x, band.mean, color=hue, linestyle=style, linewidth=width, marker=marker, markersize=width + 4
    )
    line.set_zorder(order)
    line.set_alpha(1 if curve.run is None else 0.7)
    if titles is None:
        return
    name = curve.label if curve.run is None else f"{curve.label}, {curve.run}"
    line.set_gid(f"{HOVERED}{len(titles)}")
    titles.append(f"{name}: {metric.title}")
    if curve.points:
        size = width + (4 if held_out else 1.5)
        x, y = [point.x for point in curve.points], [point.y for point in curve.points]
        dots = panel.scatter(x, y, s=size**2, color=hue, alpha=1 if held_out else 0.6, linewidth=0)
        dots.set_zorder(order + 1)
        places = range(len(titles), len(titles) + len(curve.points))
        dots.set_urls(
            [
                f"#{evidence_id(curve.number, point.step)}|{place}"
                for point, place in zip(curve.points, places, strict=True)
            ]
        )
        titles += [f"{name}, step {point.step}: {point.y:.4g} {metric.unit}" for point in curve.points]


HOVERED = "curve-"  # begins the id of a line in the page's drawings


def line_width(number: int, sides: int) -> float:
    """Points: the first of the sides lies lowest and is the widest."""
    below = sides - 1 - number
    return THINNEST + below * min(STEP, (WIDEST - THINNEST) / max(1, sides - 1))


def _titled(drawn: str, titles: Sequence[str]) -> str:
    """What a browser shows while a curve or a point is hovered; each names its title by a number.

    A point's link stays within the page: matplotlib would open a new one.
    """

    def with_title(match: re.Match[str]) -> str:
        opened = '<g class="curve">' if match["curve"] else f'<a href="{match["target"]}">'
        return f"{opened}<title>{html.escape(visible(titles[int(match['curve'] or match['point'])]))}</title>"

    curve, point = rf'<g id="{HOVERED}(?P<curve>\d+)">', r'<a xlink:href="(?P<target>#[^"|]*)\|(?P<point>\d+)"[^>]*>'
    return re.sub(f"{curve}|{point}", with_title, drawn)


def _set_margins(figure: Figure, *, top: float, between: tuple[float, float]) -> None:
    """Fixed room, in inches, around panels of known make: a layout engine would take half of the time of a drawing."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.1 / width,
        bottom=0.5 / height,
        top=1 - top / height,
        wspace=between[0],
        hspace=between[1],
    )


def _legend(curves: Curves) -> dict[int, str]:
    """The name of each side, by its place."""
    sides = {curve.number: curve for found in curves.values() for curve in found}
    return {
        number: drawable(curve.label) + (f" (mean and range of {curve.band.runs} seeds)" if curve.band.runs > 1 else "")
        for number, curve in sorted(sides.items())
    }


def _add_legend(figure: Figure, names: dict[int, str], columns: int) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D(
            [],
            [],
            color=colour(number),
            linestyle=DASHES[number % len(DASHES)],
            linewidth=line_width(number, len(names)),
            label=name,
        )
        for number, name in names.items()
    ]
    figure.legend(handles=lines, loc="upper left", ncols=columns)


def drawable(label: str, longest: int = 60) -> str:
    """A name that fits a drawing: the end of a long one, and a mark for what is no printable character."""
    plain = "".join(character if character.isprintable() else "�" for character in label)
    return plain if len(plain) <= longest else f"…{plain[1 - longest :]}"


@contextmanager
def drawing() -> Iterator[Any]:
    """A function that makes figures (width and height in inches) in our style, without any display."""
    import matplotlib
    from matplotlib.figure import Figure

    def new_figure(width: float, height: float) -> Figure:
        return Figure(figsize=(width, height))

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name may be in any script; boxes will do
        yield new_figure


def png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return content.getvalue()


def _svg(figure: Figure, description: str) -> str:
    """The <svg> element alone, transparent, with text as text and in the page's own colour."""
    content = io.StringIO()
    figure.savefig(content, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    drawn = content.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(INK, "currentColor")
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
