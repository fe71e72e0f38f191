"""The picture of a swap test: accuracy against the share of tokens that the other model chose, a panel each way."""

from __future__ import annotations

from typing import Any

from dgpo_cli.reporting.plots import STYLES, colour, drawable, drawing, png

SHOWN = ("high", "random", "low")


def swap_png(record: dict[str, Any]) -> bytes:
    """A PNG of both ways, with 95% intervals over problems; shares on a root scale, as few of them are large."""
    ways = list(dict.fromkeys(row["way"] for row in record["arms"]))
    with drawing() as new_figure:
        figure = new_figure(11, 4)
        figure.set_layout_engine("constrained")
        for panel, way in zip(figure.subplots(1, len(ways), sharey=True, squeeze=False)[0], ways, strict=True):
            rows = [row for row in record["arms"] if row["way"] == way]
            for number, name in enumerate(SHOWN):
                _draw_arm(panel, [row for row in rows if row["arm"] in (name, "nothing", "everything")], name, number)
            panel.set_title(drawable(way), fontsize=10, loc="left", fontweight="bold")
            panel.set_xscale("function", functions=(_root, _square))
            panel.set_xlim(0, 1.02)
            panel.set_xticks([0, 0.01, 0.04, 0.1, 0.3, 0.6, 1], ["0", "1", "4", "10", "30", "60", "100"])
            panel.set_xlabel("% of the tokens that the other model chose")
            panel.set_ylabel("accuracy, %")
            panel.legend()
        return png(figure)


def _draw_arm(panel: Any, rows: list[dict[str, Any]], name: str, number: int) -> None:
    rows = sorted(rows, key=lambda row: float(row["share"]))
    x = [row["share"] for row in rows]
    y = [100 * row["accuracy"]["value"] for row in rows]
    ends = [row["accuracy"]["ci95"] or (row["accuracy"]["value"],) * 2 for row in rows]
    errors = [
        [max(0.0, mean - 100 * low) for mean, (low, _) in zip(y, ends, strict=True)],
        [max(0.0, 100 * high - mean) for mean, (_, high) in zip(y, ends, strict=True)],
    ]
    style = STYLES[number % len(STYLES)]
    panel.errorbar(x, y, yerr=errors, color=colour(number), linestyle=style, marker="o", capsize=3, label=name)


def _root(values: Any) -> Any:
    return abs(values) ** 0.5


def _square(values: Any) -> Any:
    return values**2
