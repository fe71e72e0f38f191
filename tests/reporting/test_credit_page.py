"""The credit view in a real Chromium: what it shows is what the file holds, and nothing in it runs or leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser import Opener, OpenPage
from page_factory import GATINGS, stored, write_page
from record_factory import HOSTILE, made_up, page_credit, page_data

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.records.regated import Gated, regate
from dgpo_cli.records.stored_rollouts import StoredRollouts
from dgpo_cli.reporting.credit_page import credit_page

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StoredRollouts, list[Gated]]:
    """16 completions of 40 tokens, two prompts."""
    return write_page(tmp_path_factory.mktemp("small"), made_up(16, 40))


def tip(opened: OpenPage, key: str, column: int = 0) -> float:
    text = opened.page.locator(f"#tip td[data-key={key}]").nth(column).inner_text()
    return float(text.replace("−", "-"))


def card(opened: OpenPage, sample: int) -> Any:
    """The card of a completion of the first prompt."""
    group = opened.page.locator(".group").first
    return group.locator(".rollout").filter(has_text=re.compile(rf"^#{sample}\b"))


def test_hover_shows_what_the_file_holds(open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]]) -> None:
    file, batch, gated = small
    opened = open_page(file)
    for sample, place in ((0, 0), (3, 17), (7, 39)):
        record = batch.records[sample]
        card(opened, sample).locator(".tokens .t").nth(place).hover()
        shown = {"logprob": "logprobs", "ref_logprob": "ref_logprobs", "entropy": "entropy", "hellinger": "hellinger"}
        for key, name in shown.items():
            assert tip(opened, key) == float(f"{record[name][place]:.6g}"), key
        assert tip(opened, "A") == float(f"{record['advantage']:.6g}")
        for column, item in enumerate(gated):
            weight, score = float(item.credit.weights[sample, place]), float(item.credit.score[sample, place])
            assert tip(opened, "credit", column) == float(f"{weight:.6g}")
            assert tip(opened, "score", column) == float(f"{score:.6g}")
            assert tip(opened, "advantage", column) == float(f"{weight * record['advantage']:.6g}")
    opened.assert_clean()


def test_tokens_are_shaded_around_one_and_by_whatever_is_chosen(
    open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]]
) -> None:
    file, batch, gated = small
    opened = open_page(file)
    classes = "tokens => [...tokens.children].map(token => token.className)"
    tokens = card(opened, 0).locator(".tokens")
    opened.page.keyboard.press("g")  # calibrated
    weights = gated[1].credit.weights[0].tolist()
    for weight, name in zip(weights, tokens.evaluate(classes), strict=True):
        assert ("high" in name, "low" in name) == (weight > 3 ** (0.5 / 12), weight < 3 ** (-0.5 / 12)), weight
    assert opened.page.locator("#legend").inner_text().split() == [
        "credit,",
        "calibrated",
        "less",
        "⅓",
        "1",
        "3",
        "more",
    ]
    opened.page.get_by_role("radio", name="entropy").click()
    strengths = [int(re.search(r"l(\d+)", name)[1]) if "sq" in name else 0 for name in tokens.evaluate(classes)]  # type: ignore[index]
    entropy = batch.records[0]["entropy"]
    order = sorted(range(40), key=entropy.__getitem__)
    assert [strengths[i] for i in order] == sorted(strengths)
    assert strengths[order[-1]] > 0
    opened.assert_clean()


def test_fitted_scale_magnifies_what_the_fixed_one_leaves_plain(
    open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]]
) -> None:
    opened = open_page(small[0])
    shaded = ".tokens .t.high, .tokens .t.low"
    opened.page.wait_for_selector(".tokens")
    before = opened.page.locator(shaded).count()
    opened.page.keyboard.press("f")
    assert opened.page.locator(shaded).count() > before
    assert "fitted" in opened.page.locator("#legend").inner_text()


def test_two_gatings_stand_beside_each_other(
    open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]]
) -> None:
    file, _, gated = small
    opened = open_page(file)
    opened.page.get_by_role("button", name="Side by side").click()
    views = card(opened, 0).locator(".view")
    assert views.locator("h5").all_inner_texts() == ["paper", "calibrated"]
    left, right = views.nth(0).bounding_box(), views.nth(1).bounding_box()
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    for column, item in enumerate(gated):
        shown = opened.page.locator(".gating").nth(column).locator("[data-metric=ess]").inner_text()
        assert shown == f"{item.diagnostics['credit/ess']:.4f}"
    opened.assert_clean()


def test_right_and_wrong_stand_side_by_side_sorted_by_reward(open_page: Opener, tmp_path: Path) -> None:
    records = made_up(8, 6)
    for record, (reward, correct) in zip(
        records,
        [(0.1, False), (1, True), (0.9, True), (0, False), (1, True), (0.5, False), (0.7, True), (0, False)],
        strict=True,
    ):
        record |= {"reward": reward, "correct": correct}
    opened = open_page(write_page(tmp_path, records)[0])
    samples = "side => [...side.querySelectorAll('.rollout')].map(card => card.innerText.match(/^#(\\d+)/)[1]).join()"
    assert opened.page.locator(".side.right").evaluate(samples) == "1,4,2,6"
    assert opened.page.locator(".side.wrong").evaluate(samples) == "5,0,3,7"
    assert (
        opened.page.locator(".side.right").bounding_box()["y"] == opened.page.locator(".side.wrong").bounding_box()["y"]
    )
    opened.page.get_by_role("radio", name="wrong 4").click()
    assert opened.page.locator(".rollout:visible").count() == 4


def test_keys_go_through_tokens_and_rollouts(
    open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]]
) -> None:
    file, _, gated = small
    opened = open_page(file)
    press, here = opened.page.keyboard.press, opened.page.locator(".t.here")
    card(opened, 1).locator(".tokens").focus()
    for key, place in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", 39),
        ("ArrowRight", 39),
        ("Home", 0),
    ):
        press(key)
        assert here.evaluate("token => token.place") == place, key
    press("g")
    press("M")
    best = int(gated[1].credit.weights[1].argmax())
    assert here.evaluate("token => token.place") == best
    assert tip(opened, "credit", 1) == float(f"{float(gated[1].credit.weights[1].max()):.6g}")
    assert f"credit {tip(opened, 'credit', 1):g}" in opened.page.locator("#spoken").inner_text()
    first = here.evaluate("token => token.closest('.rollout').innerText")
    press("ArrowDown")
    assert here.evaluate("token => token.closest('.rollout').innerText") != first
    press("ArrowUp")
    assert here.evaluate("token => token.closest('.rollout').innerText") == first
    press("4")
    assert opened.page.get_by_role("radio", name="entropy").get_attribute("aria-checked") == "true"
    press("Escape")
    assert not opened.page.locator("#tip").is_visible()
    assert not opened.page.locator("#explained").is_visible()
    press("?")
    assert opened.page.locator("#explained").is_visible()
    opened.assert_clean()


def test_search_finds_text_that_runs_over_several_tokens(open_page: Opener, tmp_path: Path) -> None:
    texts = ["so", " mul", "ti", "ply", " by", " 2", " so"]
    opened = open_page(write_page(tmp_path, made_up(4, 7, texts=texts, group_size=2))[0])
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("MULTIPLY")
    opened.page.wait_for_selector("#found:not(:empty)")
    assert opened.page.locator("#found").inner_text() == "4 in 4"
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#found").inner_text() == "1 of 4"
    first = opened.page.locator(".rollout").first
    assert first.locator(".t.hit").all_inner_texts() == [" mul", "ti", "ply"]
    assert opened.page.locator(".t.here").inner_text() == " mul"
    opened.assert_clean()


def test_enter_searches_for_what_stands_there_however_soon_it_comes(open_page: Opener, tmp_path: Path) -> None:
    opened = open_page(write_page(tmp_path, made_up(4, 4, texts=["a", "b", "a", "c"], group_size=2))[0])
    found, keyboard = opened.page.locator("#found"), opened.page.keyboard
    keyboard.press("/")
    keyboard.type("a")
    opened.page.wait_for_selector("#found:not(:empty)")
    keyboard.press("Backspace")
    keyboard.type("zq", delay=40)
    keyboard.press("Enter")
    assert found.inner_text() == "not found"
    assert opened.page.locator(".t.here").count() == 0
    keyboard.press("Control+a")
    keyboard.type("c", delay=40)
    keyboard.press("Shift+Enter")
    assert found.inner_text() == "4 of 4"
    opened.page.wait_for_timeout(200)  # longer than a search waits for the next key
    assert found.inner_text() == "4 of 4"
    opened.assert_clean()


def test_a_choice_keeps_the_focus_and_arrows_go_through_it(
    open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]]
) -> None:
    opened = open_page(small[0])
    press = opened.page.keyboard.press

    def focused() -> list[str]:
        return list(
            opened.page.evaluate(
                "(({ activeElement: e }) => [e.innerText.split('\\n')[0], e.getAttribute('aria-checked')])(document)"
            )
        )

    opened.page.get_by_role("radio", name="entropy").focus()
    for key in ("Enter", "Space"):
        press(key)
        assert focused() == ["entropy", "true"]
    for key, name in (
        ("ArrowRight", "log p"),
        ("ArrowDown", "log q"),
        ("ArrowLeft", "log p"),
        ("ArrowUp", "entropy"),
    ):
        press(key)
        assert focused() == [name, "true"]
    card = opened.page.locator(".gating").nth(1)
    card.focus()
    press("Enter")
    assert focused() == ["calibrated", "true"]
    press("ArrowRight")  # round to the first
    assert focused() == ["paper", "true"]
    for group in ("#gatings", "#shades", "#scales", "#filters"):  # Tab enters each at what is chosen
        stops = opened.page.locator(f"{group} [role=radio][tabindex='0']")
        assert stops.count() == 1
        assert stops.get_attribute("aria-checked") == "true"
    opened.assert_clean()


def test_cards_say_which_rollouts_their_numbers_cover(open_page: Opener, tmp_path: Path) -> None:
    records = made_up(8, 6)
    for record in records[:3]:
        record["advantage"] = 0.0
    opened = open_page(write_page(tmp_path, records)[0])
    assert opened.page.locator("#scope").inner_text() == "Numbers over 5 of 8 rollouts, those with A != 0"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_every_shade(
    open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]], theme: str
) -> None:
    """WCAG's contrast of the ink on each of the 36 shades: at least 4.5."""
    opened = open_page(small[0], theme=theme)
    contrast = """() => {
      const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const light = (css, under) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of [under, css]) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
          .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const surface = getComputedStyle(document.querySelector(".rollout")).backgroundColor;
      const ink = light(getComputedStyle(document.body).color, surface);
      return ["low", "high", "sq"].flatMap((hue) => Array.from({ length: 12 }, (_, i) => {
        const back = light(colourOf(`t ${hue} l${i + 1}`), surface);
        return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
      }));
    }"""
    values = opened.page.evaluate(contrast)
    assert len(values) == 36
    assert min(values) >= 4.5
    assert max(values) > 1.4 * min(values)  # and the shades differ


def test_the_theme_follows_the_system_and_the_button(
    open_page: Opener, small: tuple[Path, StoredRollouts, list[Gated]]
) -> None:
    background = "() => getComputedStyle(document.body).backgroundColor"
    light, dark = (open_page(small[0], theme=theme) for theme in ("light", "dark"))
    assert light.page.evaluate(background) != dark.page.evaluate(background)
    dark.page.get_by_role("button", name="Theme").click()
    assert dark.page.evaluate(background) == light.page.evaluate(background)
    dark.assert_clean()


def test_a_hostile_completion_is_inert(open_page: Opener, tmp_path: Path) -> None:
    records = made_up(4, len(HOSTILE), texts=HOSTILE, group_size=2)
    for record in records:
        record |= dict.fromkeys(("prompt", "gold", "answer", "error", "prompt_id"), "".join(HOSTILE[:9]))
    records[0]["correct"] = None
    file, _, _ = write_page(tmp_path, records)
    opened = open_page(file)
    opened.page.wait_for_selector(".tokens")
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("img, iframe, object, embed, link, base, form").count() == 0
    assert opened.page.locator("script").count() == 2
    assert opened.page.locator("style").count() == 1
    spans = opened.page.locator(".tokens").first.locator("> *")
    assert spans.count() == len(HOSTILE)
    shown = spans.all_inner_texts()
    assert shown[: HOSTILE.index("__proto__")][:7] == HOSTILE[:7]
    assert shown[7:13] == [
        "LSEPPSEP",
        "RLOevilPDFRLIxPDIRLM",
        "NULESC[31mDEL",
        "U+D800",
        "ZWSPBOMSHYNBSP",
        HOSTILE[12],
    ]
    assert shown[-2:] == ["x" * 300 + "… 100,000 characters", "empty"]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", opened.page.locator("body").inner_text())
    for place in (0, 8, 14):  # the tooltip too
        spans.nth(place).hover()
        assert opened.page.locator("#tip .name").inner_text()
    opened.page.fill("#search", "</script>")
    opened.page.wait_for_selector("#found:not(:empty)")
    assert opened.page.evaluate("window.hacked") is None
    opened.assert_clean()


def test_white_space_is_visible_and_still_itself(open_page: Opener, tmp_path: Path) -> None:
    texts = [" a", "\n", "\t", "<0xE2>", "<id:151700>"]
    opened = open_page(write_page(tmp_path, made_up(2, 5, texts=texts, group_size=2))[0])
    tokens = opened.page.locator(".tokens").first
    marks = "tokens => [...tokens.querySelectorAll('.v')].map(m => getComputedStyle(m, '::before').content)"
    assert tokens.evaluate(marks) == ['"·"', '"⏎"']
    assert tokens.evaluate("tokens => tokens.textContent") == " a\n⇥<0xE2><id:151700>"
    opened.page.keyboard.press("w")
    assert tokens.evaluate(marks) == ["none", "none"]


def test_rollouts_without_a_reference_show_what_there_is(open_page: Opener, tmp_path: Path) -> None:
    records = [
        {name: value for name, value in record.items() if name not in ("ref_logprobs", "hellinger")}
        | {"reward": None, "correct": None, "advantage": None}
        for record in made_up(2, 5)
    ]
    file = tmp_path / "report.html"
    file.write_text(credit_page(stored(tmp_path, records), []), encoding="utf-8")
    opened = open_page(file)
    checked = "button => button.getAttribute('aria-checked') + button.disabled"
    radio = opened.page.locator("#shades button")
    assert [radio.nth(i).evaluate(checked) for i in range(7)] == [
        *("falsetrue", "falsetrue", "falsetrue", "truefalse", "falsefalse", "falsetrue", "falsetrue")
    ]
    opened.page.locator(".tokens .t").first.hover()
    assert tip(opened, "entropy") == float(f"{records[0]['entropy'][0]:.6g}")
    opened.assert_clean()


def test_64_rollouts_of_512_tokens_take_less_than_3_megabytes(tmp_path: Path) -> None:
    batch = stored(tmp_path, made_up(64, 512))
    names = ("uniform", "paper", "hellinger", "calibrated", "surprisal", "top_entropy", "random")  # docs/credit.md's
    assert len(credit_page(batch, regate(batch, GATINGS)).encode()) < 1.5 * MEGABYTE
    assert (
        len(credit_page(batch, regate(batch, {name: gating_option(name) for name in names})).encode()) < 2.5 * MEGABYTE
    )


def test_a_score_that_gatings_share_is_embedded_once_and_uniform_as_numbers(tmp_path: Path) -> None:
    batch = stored(tmp_path, made_up(4, 8))
    gated = regate(batch, {name: gating_option(name) for name in ("uniform", "paper", "calibrated", "top_entropy")})
    data = page_data(credit_page(batch, gated))
    uniform, paper, calibrated, top_entropy = data["gatings"]
    assert [data["columns"][uniform[name]] for name in ("score", "credit")] == [0.0, 1.0]
    assert paper["score"] == calibrated["score"]
    assert top_entropy["score"] == data["signals"]["entropy"]
    shown = page_credit(credit_page(batch, gated))
    assert shown == {item.label: item.credit.weights.tolist() for item in gated}


def test_a_thousand_completions_are_drawn_as_they_come_into_view(open_page: Opener, tmp_path: Path) -> None:
    opened = open_page(write_page(tmp_path, made_up(1000, 60))[0])
    assert opened.page.locator(".rollout").count() == 1000
    opened.page.wait_for_selector(".tokens")
    assert 0 < opened.page.locator(".tokens").count() < 100
    last = opened.page.locator(".rollout").last
    assert last.locator(".tokens").count() == 0
    last.scroll_into_view_if_needed()
    last.locator(".tokens").wait_for()
    assert last.locator(".t").count() == 60
    opened.assert_clean()
