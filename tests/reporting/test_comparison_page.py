"""compare.html in a real browser, and the pictures beside it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from browser import Opener
from PIL import Image
from run_factory import evaluation, samples, training

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


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sides with two seeds each, two of them alike in every row; hostile problems and completions."""
    base = tmp_path_factory.mktemp("three")
    signed = {"algo_settings": {"reward_right": 1.0, "reward_wrong": -1.0}}
    sides: dict[str, dict[str, Any]] = {"a": {"flag": True}, "b": {"flag": False}, "c": {"flag": None, **signed}}
    runs = []
    for name, settings in sides.items():
        for seed in range(2):
            right = [4, 0, 2] if name == "a" else [0, 4, 2]
            runs.append(training(base / f"{name}{seed}", right, seed=seed, rows=rows(0.1), evaluated=8, **settings))
            facts = {"status": "done", "first_started": f"2026-11-2{seed}T09:10:00+0000", "git_commit": "abc123" * 6}
            (base / f"{name}{seed}" / "run.json").write_text(json.dumps(facts))
            own = [
                [(f"{HOSTILE} {name}{seed} says {sample}", sample < count) for sample in range(4)] for count in right
            ]
            samples(runs[-1], own, prompt=f"{HOSTILE} {{index}}?")
    return compared(base, runs)


def test_held_out_accuracy_comes_first_and_unlike_rewards_have_a_drawing_each(open_page: Opener, three: Path) -> None:
    page = open_page(three / "compare.html").page
    shown = page.locator("figure[data-axis=steps]").text_content()
    titles = ["b, held out", "reward, 1.0", "reward, -1.0 to 1.0", "accuracy", "entropy"]
    places = [shown.find(title) for title in titles if title != "reward, 1.0"]
    assert -1 not in places
    assert places == sorted(places)


def test_curves_that_lie_on_each_other_are_all_seen_and_hovering_names_them(open_page: Opener, three: Path) -> None:
    """The rows of all sides are the same, so each line hides those below but for its gaps and their edges."""
    opened = open_page(three / "compare.html", width=1440)
    figure = opened.page.locator("figure[data-axis=steps]")
    panel = figure.locator("svg > g > g[id^=axes]").filter(has_text="length")
    with Image.open(io.BytesIO(panel.screenshot())) as picture:
        found = {colour: count for count, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    for hue in COLOURS[:3]:
        assert found.get(tuple(bytes.fromhex(hue[1:])), 0) > 20, hue  # pixels
    names = figure.locator("g.curve > title").all_text_contents()
    assert "flag=false: length" in names
    assert "flag=false, step 8: 30 tokens" in figure.locator("a > title").all_text_contents()


def test_a_point_of_a_curve_opens_what_its_runs_recorded(open_page: Opener, three: Path) -> None:
    opened = open_page(three / "compare.html", width=1440)
    page = opened.page
    assert not page.locator(".point").filter(visible=True).count()
    page.locator('figure[data-axis=steps] a[href="#at-2-8"]').first.click()  # it lies on those of the other sides
    (point,) = page.locator(".point").filter(visible=True).all()
    assert "flag=null after step 8" in point.inner_text()
    point.get_by_text("flag=false").click()
    (point,) = page.locator(".point").filter(visible=True).all()
    text = " ".join(point.inner_text().split())
    assert "flag=false after step 8" in text
    assert "b0 50.0% - 0.8 0.8 0.125 30 - metrics.jsonl, evals/step_000008" in text
    point.get_by_text("close").click()
    assert not page.locator(".point").filter(visible=True).count()
    opened.assert_clean()


def test_a_point_of_the_differences_opens_the_problems_of_its_pair(open_page: Opener, three: Path) -> None:
    page = open_page(three / "compare.html", width=1440).page
    last = page.locator("#pair-2")
    assert not last.is_visible()
    page.locator('.differences a[href="#pair-2"]').click()
    last.wait_for(state="visible")
    assert page.locator(".differences a > title").last.text_content() == (
        "flag=null against flag=false: not enough seeds, 0.0 points"
    )


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_a_problem_expands_to_its_text_and_both_answers_which_are_inert(
    open_page: Opener, three: Path, theme: str, width: int
) -> None:
    opened = open_page(three / "compare.html", theme=theme, width=width)
    page = opened.page
    problem = page.locator("details.problem[data-sign=win]").first  # problem 1: right in b, wrong in a
    body = problem.locator(".answers")
    assert not body.is_visible()
    problem.locator("summary").click()
    text = body.inner_text()
    assert "<img src=x onerror=alert(1)> \\u202e$\\frac{\\x07 ünï 算 &lt; {{7*7}} '\" 1?" in text
    assert "gold 1" in text
    first, second = (" ".join(one.inner_text().split()) for one in body.locator(".both > div").all())
    assert "a: flag=true" in first
    assert "✗ wrong" in first
    assert "a completion that is wrong" in first
    assert "a0 says 0" in first
    assert "b: flag=false" in second
    assert "✓ right x 2" not in second  # each sample has an answer of its own
    assert "2 more answers" in second  # 8 samples, 6 are shown
    assert "b0 says 0" in second
    assert page.locator("img, script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.assert_clean()


@pytest.mark.parametrize("width", [1440, 390])
def test_the_table_of_runs_is_read_without_scrolling(open_page: Opener, three: Path, width: int) -> None:
    page = open_page(three / "compare.html", width=width).page
    table = page.locator("table.runs")
    assert table.evaluate("node => node.parentElement.scrollWidth <= node.parentElement.clientWidth")
    assert "commit abc123abc123" in page.get_by_text("All runs:").inner_text()
    cells = table.locator("tr").nth(2).locator("td").all()
    assert [cells[0].is_visible(), cells[-1].is_visible()] == [True, True]
    named = cells[2].evaluate("node => getComputedStyle(node, '::before').content")
    assert named == ('"accuracy [95%]"' if width == 390 else "none")


def test_the_page_says_what_when_and_by_which_commit(open_page: Opener, three: Path) -> None:
    page = open_page(three / "compare.html").page
    assert page.title() == "flag=true, flag=false, flag=null on b · dgpo compare"
    facts = page.locator(".facts").inner_text()
    assert "runs begun 2026-11-20 to 2026-11-21 · commit abc123abc123" in facts
    record = json.loads((three / "compare.json").read_text())
    assert facts.startswith(f"compared {record['made'][:10]}")
    assert record["runs"][0]["commit"] == "abc123" * 6


def test_values_are_written_as_yaml_does_and_a_repeated_verdict_is_said_once(open_page: Opener, three: Path) -> None:
    page = open_page(three / "compare.html").page
    row = page.locator("table.settings tr").filter(has_text="flag").last
    assert row.locator("td").all_inner_texts() == ["flag", "true", "false", "null"]
    (verdict,) = page.locator(".verdict").all()
    text = " ".join(verdict.inner_text().split())
    assert "In all 3 pairs of flag=true, flag=false and flag=null: no difference seen, but so few seeds" in text
    assert verdict.locator("a").count() == 3
    assert "no difference seen" in page.locator("table.pairs tr").nth(1).inner_text()
