"""How the credit view fits a window, and links to a token of it: in a real Chromium."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

import pytest
from browser import Opener, OpenPage
from page_factory import group, write_page
from record_factory import HOSTILE, made_up

from dgpo_cli.records.regated import Gated
from dgpo_cli.records.stored_rollouts import StoredRollouts

Made = tuple[Path, StoredRollouts, list[Gated]]
HERE = "token => [token.closest('.tokens').rollout.sample, token.place]"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """80 completions of 60 tokens, ten prompts."""
    return write_page(tmp_path_factory.mktemp("long"), made_up(80, 60))


def middle(box: dict[str, float]) -> float:
    return box["y"] + box["height"] / 2


def test_m_finds_the_strongest_token_of_the_page_and_centres_it(open_page: Opener, long: Made) -> None:
    file, batch, gated = long
    opened = open_page(file, height=700)
    opened.page.keyboard.press("g")
    opened.page.keyboard.press("m")
    weights = gated[1].credit.weights.masked_fill(~batch.signals.mask, 0.0)
    row, place = divmod(int(weights.argmax()), weights.shape[1])
    here = opened.page.locator(".t.here")
    assert here.evaluate(HERE) == [batch.records[row]["sample"], place]
    opened.page.wait_for_timeout(150)  # two frames
    assert 250 < middle(here.bounding_box()) < 450
    opened.page.keyboard.press("4")
    opened.page.keyboard.press("m")
    entropy = batch.signals.entropy
    row, place = divmod(int(entropy.argmax()), entropy.shape[1])
    assert here.evaluate(HERE) == [batch.records[row]["sample"], place]
    opened.assert_clean()


def test_nothing_shows_under_the_bar_or_beside_it(open_page: Opener, long: Made) -> None:
    opened = open_page(long[0], width=1440, height=600)
    for _ in range(12):
        opened.page.keyboard.press("ArrowDown" if opened.page.locator(".t.here").count() else "m")
    for _ in range(6):
        opened.page.keyboard.press("ArrowUp")
    opened.page.wait_for_timeout(150)
    over, here = opened.page.locator(".over").bounding_box(), opened.page.locator(".t.here").bounding_box()
    assert over["y"] == 0
    assert here["y"] >= over["height"]
    covered = """box => [...Array(20).keys()].every(i => {
      const seen = document.elementFromPoint(box.x + box.width * (i + 0.5) / 20, box.height / 2);
      return seen.closest(".over") !== null;
    })"""
    assert opened.page.evaluate(covered, over)
    picture = "() => getComputedStyle(document.querySelector('.over')).boxShadow"
    assert opened.page.evaluate(picture) != "none"  # it reaches over the window's margins


def test_help_lies_over_the_page_and_closes(open_page: Opener, long: Made) -> None:
    opened = open_page(long[0])
    before = opened.page.locator(".group").first.bounding_box()
    opened.page.keyboard.press("?")
    help_text = opened.page.get_by_role("dialog")
    assert help_text.is_visible()
    assert "log p − log q" in help_text.inner_text()
    assert opened.page.locator(".group").first.bounding_box() == before  # the page keeps its place
    opened.page.keyboard.press("m")
    assert opened.page.locator(".t.here").count() == 0
    opened.page.keyboard.press("Escape")
    assert not help_text.is_visible()
    assert opened.page.locator("#help").get_attribute("aria-expanded") == "false"
    opened.page.get_by_role("button", name="Help").click()
    opened.page.mouse.click(5, 5)  # beside it
    assert not help_text.is_visible()
    opened.assert_clean()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_window_holds_the_page(open_page: Opener, long: Made, theme: str) -> None:
    opened = open_page(long[0], width=390, height=844, theme=theme)
    opened.page.keyboard.press("m")
    opened.page.wait_for_timeout(150)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    tip = opened.page.locator("#tip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= opened.page.evaluate("document.body.getBoundingClientRect().right")
    here = opened.page.locator(".t.here").bounding_box()
    assert 0 <= here["y"] <= 844
    plain = opened.page.locator("#plain")
    assert plain.bounding_box()["y"] == 0  # the bar goes, this line stays
    assert here["y"] > plain.bounding_box()["height"]
    opened.page.keyboard.press("c")
    assert opened.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    opened.page.keyboard.press("?")
    box = opened.page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    opened.assert_clean()


def link_of(opened: OpenPage) -> str:
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.page.keyboard.press("l")
    opened.page.locator("#link", has_text="Copied").wait_for()
    copied = opened.page.evaluate("navigator.clipboard.readText()")
    assert copied == opened.page.url
    return str(copied)


def test_a_link_to_a_token_opens_there(open_page: Opener, long: Made) -> None:
    opened = open_page(long[0], height=700)
    for key in ("g", "m", "ArrowRight", "4", "f"):
        opened.page.keyboard.press(key)
    here = opened.page.locator(".t.here").evaluate(HERE)
    fragment = parse_qs(link_of(opened).partition("#")[2])
    assert fragment["gating"] == ["calibrated"]
    other = open_page(long[0], height=700)
    other.page.goto(f"{other.address}#{link_of(opened).partition('#')[2]}")
    found = other.page.locator(".t.here")
    assert found.evaluate(HERE) == here
    other.page.wait_for_timeout(150)
    assert 250 < middle(found.bounding_box()) < 450
    assert other.page.get_by_role("radio", name="entropy").get_attribute("aria-checked") == "true"
    assert other.page.locator(".gating[aria-checked=true] strong").inner_text() == "calibrated"
    other.assert_clean()


def test_a_link_reaches_what_is_folded_stacked_or_filtered_out(open_page: Opener, tmp_path: Path) -> None:
    folded = group("folded", ("a|b", False), ("a|b", False), ("a|c", False), signal=False)
    opened = open_page(write_page(tmp_path, [*folded, *group("mixed", ("a|b", True), ("a|c", False))])[0])
    opened.page.get_by_role("radio", name="right").click()
    opened.page.evaluate("location.hash = '#prompt=folded&sample=1&token=1'")
    here = opened.page.locator(".t.here:visible")
    assert here.evaluate(HERE) == [1, 1]
    opened.assert_clean()


def test_a_hostile_fragment_does_nothing(open_page: Opener, tmp_path: Path) -> None:
    records = made_up(4, 4, group_size=2)
    for record in records[:2]:
        record["prompt_id"] = HOSTILE[1]
    opened = open_page(write_page(tmp_path, records)[0])
    opened.page.locator(".tokens .t").first.hover()
    address = link_of(opened)
    assert "<" not in address
    again = open_page(tmp_path / "report.html")
    for fragment in (
        address.partition("#")[2],
        "gating=<img src=x onerror=hacked=1>&shade=__proto__&token=1e99&sample=&prompt=&order=none&only=__proto__",
        "%E0%A4%A&token=x",
        "live=1&y=nan&step=1",
    ):
        again.page.goto(f"{again.address}#{fragment}")
        again.page.reload()
        assert again.page.evaluate("window.hacked") is None
        assert not again.page.locator("#alive").is_visible()  # this page is of no running run
    assert again.page.locator("img").count() == 0
    again.assert_clean()


def test_the_logratio_is_signed_and_credit_times_advantage_too(open_page: Opener, long: Made) -> None:
    file, batch, gated = long
    opened = open_page(file)
    names = "tokens => [...tokens.children].map(token => token.className.match(/high|low/)?.[0])"
    card = opened.page.locator(".rollout").filter(has=opened.page.locator(".tokens")).first
    row = next(
        i for i, record in enumerate(batch.records) if record["sample"] == card.evaluate("c => c.rollout.sample")
    )
    assert batch.signals.ref_logprobs is not None
    for name, values in (
        ("log p − log q", (batch.signals.logprobs - batch.signals.ref_logprobs)[row]),
        ("credit × A", gated[0].credit.weights[row] * batch.advantages[row]),
    ):
        opened.page.get_by_role("radio", name=name).click()
        seen = card.locator(".tokens").evaluate(names)
        for value, side in zip(values.tolist(), seen, strict=True):
            assert side in ("high" if value > 0 else "low", None), value
        assert {"high", "low"} & set(seen)
    assert opened.page.locator("#legend").inner_text().split("\n")[-1] == "reinforced"
    opened.assert_clean()
