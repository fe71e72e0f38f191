"""The pictures of docs/credit.md and README.md, made by the program itself from a run of the bundled model.

    dgpo train steps=30 hydra.run.dir=outputs/pictures logger=none
    dgpo rollout model.path=outputs/pictures reference=tiny limit=24 rollout.group_size=8 report=true \\
        rollout.alternatives=5 hydra.run.dir=outputs/pictures/credit
    python docs/images/credit.py outputs/pictures/credit

Needs a Chromium: bash tests/install_chromium.sh
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from browser import launch, opener  # noqa: E402
from rich.console import Console  # noqa: E402

from dgpo_cli.config.gatings import gating_option  # noqa: E402
from dgpo_cli.records.regated import regate  # noqa: E402
from dgpo_cli.records.stored_rollouts import StoredRollouts, read_stored  # noqa: E402
from dgpo_cli.reporting.token_view import print_rollouts  # noqa: E402


def main(folder: Path) -> None:
    """Write the PNG files of the page, and the SVG of the terminal, beside this script."""
    stored = read_stored(folder / "rollouts.jsonl")
    for browser in launch():
        for open_page in opener(browser):
            page_pictures(open_page, folder / "report.html", first_mixed_group(stored))
    terminal_picture(stored, of_group(stored, first_mixed_group(stored)))


def first_mixed_group(stored: StoredRollouts) -> int:
    """Number of the first prompt with two completions or more on either side: what there is to see."""
    groups: dict[str, list[bool]] = {}
    for record in stored.records:
        groups.setdefault(record["prompt_id"], []).append(bool(record["correct"]))
    mixed = [place for place, group in enumerate(groups.values()) if min(sum(group), len(group) - sum(group)) >= 2]
    return mixed[0] if mixed else 0


def of_group(stored: StoredRollouts, group: int) -> list[int]:
    """Rows of four completions of that prompt, right and wrong ones."""
    names = list(dict.fromkeys(record["prompt_id"] for record in stored.records))
    inside = [row for row, record in enumerate(stored.records) if record["prompt_id"] == names[group]]
    inside.sort(key=lambda row: stored.records[row]["correct"])
    return [*inside[:2], *inside[-2:]]


def page_pictures(open_page: Any, report: Path, group: int) -> None:
    for name, theme, keys in (
        ("credit", "light", "g"),  # calibrated
        ("credit_tree", "light", "gb"),
        ("credit_alternatives", "dark", "g"),
        ("credit_beside", "dark", "gc"),  # paper and calibrated
        ("credit_entropy", "light", "4"),
    ):
        page = open_page(report, theme=theme, width=1240, height=920).page
        page.wait_for_selector(".tokens")
        shown = f"groupsOf(0)[{group}].section"  # that group alone
        page.evaluate(f"for (const g of groupsOf(0)) if (g.section !== {shown}) g.section.remove()")
        for key in keys:
            page.keyboard.press(key)
        if name == "credit_alternatives":
            page.evaluate(
                f"() => {{ const group = groupsOf(0)[{group}], fork = group.forks[0];"
                " goToRollout(fork.wrong[0].card, fork.place, null, true); }"
            )
        page.wait_for_timeout(300)
        page.screenshot(path=HERE / f"{name}.png", **cut(page, name))


def cut(page: Any, name: str) -> dict[str, Any]:
    """The part of the window that a picture is about."""
    if name == "credit_alternatives":
        tip, token = page.locator("#tip").bounding_box(), page.locator(".t.here").bounding_box()
        top, bottom = min(tip["y"], token["y"]) - 20, max(tip["y"] + tip["height"], token["y"] + 30) + 10
        return {"clip": {"x": tip["x"] - 110, "y": top, "width": tip["width"] + 140, "height": bottom - top}}
    bottom = page.locator(".group").first.bounding_box()
    return {"clip": {"x": 0, "y": 0, "width": 1240, "height": min(920, bottom["y"] + bottom["height"] + 10)}}


def terminal_picture(stored: StoredRollouts, rows: list[int]) -> None:
    """Credit is that of the whole file, as on the page."""
    console = Console(record=True, width=110, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    gated = [item.only(rows) for item in regate(stored, {"calibrated": gating_option("calibrated")})]
    print_rollouts(stored.only(rows), gated, console, prompts=1)
    svg = console.export_svg(title="dgpo rollout model.path=RUN reference=tiny gating=calibrated")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # fonts of another host: the picture asks nobody
    (HERE / "credit_terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
