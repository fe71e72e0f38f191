"""compare.html in a real browser, and the pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browser import Opener
from PIL import Image
from run_factory import evaluation, training

from dgpo_cli.commands import compare as command
from dgpo_cli.config.commands import CompareConfig
from dgpo_cli.reporting.plots import COLOURS

HOSTILE = "<img src=x onerror=alert(1)> \u202e$\\frac{\x07 ünï 算 &lt; {{7*7}} '\""


def rows(gain: float) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "reward/mean": gain * step,
            "accuracy": gain * step,
            "entropy/mean": 1 / step,
            "completion/length_mean": 30.0,
            "credit/ess": None,
            "samples/generated": 128,
            "seconds/step": 2.0,
        }
        for step in range(1, 9)
    ]


def compared(tmp_path: Path, runs: list[str]) -> Path:
    command.run(CompareConfig(runs=runs), tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms with four seeds each: dapo ahead on each of three problems but the last, a tie."""
    base = tmp_path_factory.mktemp("runs")
    runs = [training(base / f"g{seed}", [0, seed % 2, 4], seed=seed, rows=rows(0.05)) for seed in range(4)]
    runs += [training(base / f"d{seed}", [2, 3, 4], seed=seed, algo="dapo", rows=rows(0.1)) for seed in range(4)]
    return compared(base, runs)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_clean_and_readable_in_both_themes(open_page: Opener, folder: Path, theme: str) -> None:
    opened = open_page(folder / "compare.html", theme=theme)
    page = opened.page
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    dark = [sum(int(part) for part in value[4:-1].split(", ")) < 300 for value in (ink, paper)]
    assert dark == [theme == "light", theme == "dark"]
    text = page.locator(".differences svg text").first
    assert text.evaluate("node => getComputedStyle(node).fill") == ink  # the drawing follows the theme
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.assert_clean()


def test_the_page_tells_verdict_statistics_and_differences(open_page: Opener, folder: Path) -> None:
    page = open_page(folder / "compare.html").page
    (pair,) = json.loads((folder / "compare.json").read_text())["pairs"]
    assert (pair["verdict"], pair["unit"]) == ("better", "seed")
    verdict = page.locator(".verdict")  # 4.5 of 12 against 9 of 12
    assert verdict.get_attribute("data-verdict") == "better"
    assert "algo=dapo is better than algo=grpo by 37.5 points" in " ".join(verdict.inner_text().split())
    cells = page.locator("table.pairs tr").nth(1).locator("td").all_inner_texts()
    assert cells[1] == "▲ better"
    assert cells[3] == f"{100 * pair['difference']:+.1f}"
    assert cells[5] == f"{pair['p_value']:.3g}" == "0.0286"  # 2 / 70
    settings = page.locator("table.settings").inner_text()
    assert "algo.clip_high" in settings
    assert "0, 1, 2, 3" in settings


def test_curves_switch_between_steps_samples_and_time(open_page: Opener, folder: Path) -> None:
    opened = open_page(folder / "compare.html")
    page = opened.page
    for name, last in (("steps", "8"), ("samples", "1000"), ("time", "0.2")):
        page.locator(f"label[for=axis-{name}]").click()
        visible = [one.get_attribute("data-axis") for one in page.locator(".tabs figure").all() if one.is_visible()]
        assert visible == [name]
        assert last in page.locator(f"figure[data-axis={name}]").inner_text()
    drawn = page.locator("figure[data-axis=time]").inner_text()
    assert "accuracy" in drawn
    assert "credit/ess" not in drawn  # null in every row
    opened.assert_clean()


def test_every_problem_shows_who_won_it(open_page: Opener, folder: Path) -> None:
    page = open_page(folder / "compare.html").page
    problems = page.locator("details.problems")
    assert "2 won, 1 tied, 0 lost" in problems.locator("> summary").inner_text()
    lines = [line.locator("> span").all_inner_texts()[:4] for line in problems.locator(".problem").all()]
    # problem 1: grpo 0 + 1 + 0 + 1 of 16, dapo 12 of 16
    assert lines == [
        ["1 p1", "2/16", "12/16", "+62.5"],
        ["0 p0", "0/16", "8/16", "+50.0"],
        ["2 p2", "16/16", "16/16", "tie"],
    ]


def test_of_many_problems_the_ties_are_counted_and_not_listed(open_page: Opener, tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", [1] * 100), evaluation(tmp_path / "b", [1] * 97 + [2, 2, 0])
    opened = open_page(compared(tmp_path, [a, b]) / "compare.html", width=390)
    problems = opened.page.locator("details.problems")
    assert "2 won, 97 tied, 1 lost (ties are not listed)" in " ".join(
        problems.locator("> summary").inner_text().split()
    )
    assert [line.get_attribute("data-sign") for line in problems.locator(".problem").all()] == [
        "win",
        "win",
        "loss",
    ]
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # of a telephone
    opened.assert_clean()


def test_hostile_names_are_inert(open_page: Opener, tmp_path: Path) -> None:
    runs = [
        training(
            tmp_path / HOSTILE / f"run{seed}{algo}", [1, 2], seed=seed, algo=algo, rows=rows(0.1), note=HOSTILE + algo
        )
        for algo in ("grpo", "dapo")
        for seed in range(2)
    ]
    opened = open_page(compared(tmp_path, runs) / "compare.html")
    shown = opened.page.locator("table.runs").inner_text()
    assert "<img src=x onerror=alert(1)>" in shown
    assert "{{7*7}}" in shown
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == 0
    opened.assert_clean()


def test_pictures_hold_every_side_in_its_colour(folder: Path) -> None:
    with Image.open(folder / "curves.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    for hue in COLOURS[:2]:
        assert tuple(bytes.fromhex(hue[1:])) in colours
    with Image.open(folder / "differences.png") as picture:
        assert picture.width > 900


def test_a_comparison_without_training_has_no_curves(tmp_path: Path) -> None:
    out = compared(tmp_path, [evaluation(tmp_path / "a", [1, 2]), evaluation(tmp_path / "b", [1, 2])])
    assert sorted(file.name for file in out.iterdir()) == ["compare.html", "compare.json", "differences.png"]
    assert "Learning curves" not in (out / "compare.html").read_text()
