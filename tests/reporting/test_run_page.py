"""The page of a run: which steps it keeps, which groups it shows of each, and how it is looked through."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import Opener
from page_factory import group
from record_factory import page_credit, page_data, write_rollouts

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.records.stored_rollouts import read_stored
from dgpo_cli.reporting.credit_page import PageStep
from dgpo_cli.reporting.run_page import (
    STEP_ROLLOUTS,
    page_gatings,
    page_step,
    run_page,
    shown_prompts,
    stored_steps,
    thinned,
)

MIXED = (("a|b|c", True), ("a|b|d", False))
ALIKE = (("a|b|c", True), ("a|b|c", True))
GATINGS = page_gatings(gating_option("paper"))


def test_the_first_and_the_newest_steps_stay_and_older_ones_are_further_apart() -> None:
    kept = thinned(range(1, 201), most=8)
    assert len(kept) == 8
    assert (kept[0], kept[-1]) == (1, 200)
    gaps = [later - earlier for earlier, later in pairwise(kept)]
    assert gaps[-1] < gaps[0]
    assert thinned([1, 10, 20], most=8) == [1, 10, 20]
    assert thinned([], most=8) == []


def test_a_step_that_was_dropped_does_not_come_back() -> None:
    """So a page that grows with the run holds what a page of all its files holds."""
    kept: list[int] = []
    for step in range(10, 1000, 10):
        kept = thinned([*kept, step], most=6)
        assert kept == thinned(range(10, step + 1, 10), most=6)


def made(folder: Path, steps: dict[int, list[dict[str, Any]]]) -> dict[int, PageStep]:
    (folder / "rollouts").mkdir()
    found: dict[int, PageStep] = {}
    for step, records in steps.items():
        stored = read_stored(write_rollouts(folder / f"rollouts/step_{step:06d}.jsonl", records))
        found[step] = page_step(step, stored, GATINGS, shown_prompts(found))
    return found


def test_prompts_of_other_steps_come_first_then_mixed_groups(tmp_path: Path) -> None:
    many = [group(f"alike {i}", *ALIKE, signal=False) for i in range(STEP_ROLLOUTS)]
    first = [record for one in [*many, group("mixed", *MIXED)] for record in one]
    second = [record for one in [group("other", *MIXED), *many[::-1], group("mixed", *ALIKE)] for record in one]
    steps = made(tmp_path, {1: first, 20: second})
    for step, name in ((1, "mixed"), (20, "mixed")):
        records = steps[step].stored.records
        assert len(records) == STEP_ROLLOUTS
        assert name in {record["prompt_id"] for record in records}
        assert steps[step].of == len(first) + (2 if step == 20 else 0)
    assert "other" not in {record["prompt_id"] for record in steps[20].stored.records}  # full of prompts seen before


def test_credit_is_that_of_the_whole_step(tmp_path: Path) -> None:
    records = [record for i in range(100) for record in group(f"p{i}", *MIXED)]
    [step] = made(tmp_path, {10: records}).values()
    stored = read_stored(tmp_path / "rollouts/step_000010.jsonl")
    whole = {item.label: item for item in page_step(10, stored, GATINGS, set()).gated}
    page = run_page("run", {10: step}, [10])
    assert list(whole) == ["paper", "calibrated", "paper control=permute", "paper control=invert"]
    shown = page_credit(page)
    assert shown["calibrated"] == whole["calibrated"].credit.weights[:STEP_ROLLOUTS].tolist()
    assert page_data(page)["steps"][0]["of"] == 200


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stored steps; one prompt is in the first and the last of them."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    made(
        folder,
        {
            1: [*group("again", ("a|b|x", False), ("a|b|c", True)), *group("early", *MIXED)],
            10: group("middle", *MIXED),
            20: [
                *group("late", *ALIKE, signal=False),
                *group("again", ("a|b|c", True), ("a|b|c", True), ("a|d", False)),
            ],
        },
    )
    return folder


def write(run: Path, *, live: bool = False, of: int = 0) -> Path:
    files = stored_steps(run)
    steps: dict[int, PageStep] = {}
    for step, file in files.items():
        steps[step] = page_step(step, read_stored(file), GATINGS, shown_prompts(steps))
    stored = [*files, *range(100, 100 + of)]
    page = run.parent / "report.html"
    page.write_text(run_page("runs/run", steps, stored, live=live), encoding="utf-8")
    return page


def test_a_slider_goes_through_the_steps_and_a_prompt_is_followed(open_page: Opener, run: Path) -> None:
    opened = open_page(write(run))
    titles = opened.page.locator(".group:visible h3")
    assert opened.page.locator("#of-step").inner_text() == "step 20"  # the newest
    assert titles.all_inner_texts() == ["Prompt again", "Prompt late"]
    slider = opened.page.get_by_role("slider", name="Step")
    slider.focus()
    opened.page.keyboard.press("ArrowLeft")
    assert opened.page.locator("#of-step").inner_text() == "step 10"
    assert titles.all_inner_texts() == ["Prompt middle"]
    assert opened.page.get_by_role("radio", name="all 2").count() == 1
    opened.page.keyboard.press("End")
    opened.page.get_by_role("button", name="step 1", exact=True).click()  # "also in step 1"
    assert opened.page.locator("#of-step").inner_text() == "step 1"
    assert titles.all_inner_texts() == ["Prompt again"]
    opened.page.locator("#groups .tokens").first.focus()
    opened.page.keyboard.press("]")
    assert opened.page.locator("#of-step").inner_text() == "step 20"  # step 10 has not drawn this prompt
    slider.evaluate("slider => { slider.value = 1; slider.dispatchEvent(new Event('input')); }")
    assert opened.page.locator("#absent").inner_text() == "Prompt again is not shown of step 10; it is of step 1step 20"
    opened.page.locator("#absent").get_by_role("button", name="step 20").click()
    assert titles.all_inner_texts() == ["Prompt again"]
    opened.assert_clean()


def test_a_link_names_the_step(open_page: Opener, run: Path) -> None:
    opened = open_page(write(run))
    opened.page.goto(f"{opened.address}#step=1&prompt=early&sample=1&token=2&gating=paper+control%3Dinvert")
    assert opened.page.locator("#of-step").inner_text() == "step 1"
    assert opened.page.locator(".t.here").inner_text() == "d"
    assert opened.page.locator(".gating[aria-checked=true] strong").inner_text() == "paper control=invert"
    opened.assert_clean()


def test_steps_that_were_left_out_are_said(open_page: Opener, run: Path) -> None:
    opened = open_page(write(run, of=5))
    assert opened.page.locator("#notes").inner_text().startswith("3 of the run's 8 stored steps: the older they are")


def test_a_live_page_reloads_itself_when_asked_and_comes_back_as_it_was(open_page: Opener, run: Path) -> None:
    page = write(run, live=True)
    opened = open_page(page, height=500)
    opened.page.evaluate("window.before = true")
    box = opened.page.get_by_role("checkbox", name="Reload as the run goes on")
    box.check()
    opened.page.evaluate("clearTimeout(reloading)")  # this test takes its own time
    for key in ("g", "4", "c", "t"):
        opened.page.keyboard.press(key)
    opened.page.select_option("#order", "d")
    opened.page.get_by_role("radio", name="right 4").click()
    opened.page.locator(".tokens .t").nth(2).hover()
    page.write_text(page.read_text(encoding="utf-8").replace('"source":"runs/run"', '"source":"runs/again"'))
    opened.page.evaluate("document.activeElement.blur(); reload()")  # as after ten seconds
    opened.page.locator("#summary", has_text="runs/again").wait_for()
    opened.page.evaluate("clearTimeout(reloading)")
    opened.page.locator(".t.here").wait_for()
    assert opened.page.evaluate("window.before") is None
    assert box.is_checked()
    assert opened.page.locator("#of-step").inner_text() == "step 20"
    assert opened.page.get_by_role("radio", name="entropy").get_attribute("aria-checked") == "true"
    assert opened.page.locator(".gating[aria-checked=true] strong").inner_text() == "calibrated"
    assert opened.page.locator(".gating.beside").count() == 1
    assert opened.page.locator("#order").input_value() == "d"
    assert opened.page.get_by_role("radio", name="right 4").get_attribute("aria-checked") == "true"
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert opened.page.locator(".t.here").evaluate("token => token.place") == 2
    box.uncheck()
    opened.page.reload()
    assert not box.is_checked()
    opened.assert_clean()


def test_a_page_that_nobody_writes_again_offers_no_reload(open_page: Opener, run: Path) -> None:
    assert not open_page(write(run)).page.locator("#alive").is_visible()
