"""Groups of the credit view in a real Chromium: which come first, what is folded, and where right and wrong part."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser import Opener, OpenPage
from page_factory import group, write_page

from dgpo_cli.records.regated import Gated
from dgpo_cli.records.stored_rollouts import StoredRollouts

# 6 + 1 = 7: two right ways, three times the same; two wrong ones, which leave the right ways at tokens 2 and 3.
SUM = group(
    "sum",
    ("6|+1|=|7", True),
    ("6|+1|=|7", True),
    ("6|+1|is|7", True),
    ("6|+1|=|8", False),
    ("6|-1|=|5", False),
    ("6|+1|=|7", True),
)
Made = tuple[Path, StoredRollouts, list[Gated]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """No signal, wrong alone with signal, and right and wrong: in this order."""
    none = group("hard", *[(f"no|{i % 2}", False) for i in range(8)], signal=False)
    parts = group("partial", ("a|b", False), ("a|c", False))
    parts[0]["reward"], parts[0]["advantage"] = 0.5, 0.7
    return write_page(tmp_path_factory.mktemp("mixed"), [*none, *parts, *SUM])


def titles(opened: OpenPage) -> list[str]:
    return list(opened.page.locator(".group:visible h3").all_inner_texts())


def section(opened: OpenPage, prompt: str) -> Any:
    return opened.page.locator(".group").filter(has_text=re.compile(f"Prompt {prompt}"))


def test_mixed_groups_come_first_and_what_has_no_signal_is_one_line(open_page: Opener, mixed: Made) -> None:
    opened = open_page(mixed[0])
    assert titles(opened) == ["Prompt sum", "Prompt partial", "Prompt hard"]
    folded = section(opened, "hard")
    assert folded.inner_text().split("\n") == ["Prompt hard", "8 wrong, no signal"]
    assert folded.bounding_box()["height"] < 50
    folded.get_by_role("button").click()
    assert folded.locator(".rollout:visible").count() == 2  # two texts, four times each
    assert folded.locator(".times").all_inner_texts() == ["× 4", "× 4"]
    opened.assert_clean()


def test_a_page_without_any_signal_opens_its_first_group(open_page: Opener, tmp_path: Path) -> None:
    groups = [group(name, ("a|b", True), ("a|c", True), signal=False) for name in ("one", "two")]
    opened = open_page(write_page(tmp_path, [*groups[0], *groups[1]])[0])
    assert section(opened, "one").locator(".tokens:visible").count() == 2
    assert section(opened, "two").inner_text().split("\n") == ["Prompt two", "2 right, no signal"]


def test_identical_completions_are_one_card_that_opens(open_page: Opener, mixed: Made) -> None:
    opened = open_page(mixed[0])
    right = section(opened, "sum").locator(".side.right")
    assert right.locator("h4").inner_text() == "Right (4)"
    assert right.locator(".rollout:visible").count() == 2
    times = right.get_by_role("button", name="× 3")
    assert times.get_attribute("title") == "the same tokens: #0, #1, #5"
    times.click()
    assert right.locator(".rollout:visible").count() == 4
    opened.page.fill("#search", "hard")  # in no completion
    times.click()
    assert right.locator(".rollout:visible").count() == 2


def test_no_half_of_the_page_stays_empty(open_page: Opener, mixed: Made) -> None:
    opened = open_page(mixed[0], width=1440)
    cards = section(opened, "partial").locator(".rollout")
    left, right = cards.nth(0).bounding_box(), cards.nth(1).bounding_box()
    assert left["y"] == right["y"]
    assert right["x"] > left["x"] + left["width"] - 1
    opened.page.get_by_role("radio", name=re.compile("^wrong")).click()
    assert section(opened, "sum").locator(".side:visible").count() == 1
    assert section(opened, "sum").locator(".sides.single").count() == 1


def test_the_first_diverging_token_has_its_credit_beside_chance(open_page: Opener, mixed: Made) -> None:
    file, batch, gated = mixed
    opened = open_page(file)
    opened.page.keyboard.press("g")  # calibrated
    lines = section(opened, "sum").locator(".forks li").all_inner_texts()
    row = next(i for i, record in enumerate(batch.records) if record["tokens"] == ["6", "+1", "=", "8"])
    weights = gated[1].credit.weights[row, :4].tolist()
    chance = sum(weight >= weights[3] for weight in weights) / 4
    known = next(line for line in lines if "token 3" in line)
    assert known.startswith("Right and wrong part at token 3, after 6+1=: wrong goes 8 (1), right goes 7 (3); credit")
    assert f"credit there {float(f'{weights[3]:.4g}'):g}, and a random token of that completion has as much" in known
    assert known.endswith(f"with a chance of {100 * chance:.0f}%")
    early = next(line for line in lines if "token 1" in line)
    assert "after 6: wrong goes -1 (1), right goes +1 (4)" in early
    forks = "tokens => [...tokens.querySelectorAll('.fork')].map(token => token.place)"
    wrong = section(opened, "sum").locator(".side.wrong .tokens")
    assert [wrong.nth(i).evaluate(forks) for i in range(2)] == [[3], [1]]
    values = [weights[3], float(gated[1].credit.weights[row + 1, 1])]
    summary = opened.page.locator("#forked").inner_text()
    assert (
        f"(2 wrong completions), calibrated puts a credit of {float(f'{sum(values) / 2:.4g}'):g} on average" in summary
    )
    assert summary.endswith("(by chance 0.5).")  # 1/4 + 1/4
    section(opened, "sum").get_by_role("button", name="token 3").click()
    assert opened.page.locator(".t.here").inner_text() == "8"
    opened.assert_clean()


def test_a_completion_that_breaks_off_has_no_fork(open_page: Opener, tmp_path: Path) -> None:
    opened = open_page(write_page(tmp_path, group("cut", ("a|b|c", True), ("a|b", False)))[0])
    assert opened.page.locator(".forks li").all_inner_texts() == [
        "1 wrong completion breaks off where a right one goes on"
    ]
    assert opened.page.locator("#forked").inner_text() == ""


def test_a_group_is_a_tree_that_branches_where_completions_part(open_page: Opener, mixed: Made) -> None:
    opened = open_page(mixed[0])
    opened.page.keyboard.press("b")
    group_of_sums = section(opened, "sum")
    assert group_of_sums.locator(".tokens:visible").count() == 0
    branches = group_of_sums.locator(".branch").all()
    seen = [
        (branch.locator("> .who").inner_text(), "".join(branch.locator("> .run > .t").all_inner_texts()))
        for branch in branches
    ]
    assert seen == [
        ("4 ✓ 2 ✗", "6"),
        ("4 ✓ 1 ✗", "+1"),
        ("3 ✓ 1 ✗", "="),
        ("3 ✓", "7"),
        ("#3 ✗", "8"),
        ("#2 ✓", "is7"),
        ("#4 ✗", "-1=5"),
    ]
    group_of_sums.locator(".branch .t", has_text="8").click()
    assert opened.page.locator(".tokens .t.here").inner_text() == "8"  # back among the cards
    opened.assert_clean()


def test_groups_are_ordered_by_credit_advantage_and_distance(open_page: Opener, tmp_path: Path) -> None:
    texts = (("a|b|c", True), ("a|b|d", False))
    records = [group(name, *texts) for name in ("plain", "far", "lopsided")]
    for number, record in enumerate(record for each in records for record in each):
        record["hellinger"], record["entropy"] = [0.01, 0.01, 0.01 + number / 1e6], [0.1, 0.1, 0.1]
    records[1][0]["hellinger"][0] = 0.9
    records[1][0]["entropy"] = [0.0, 0.0, 0.0]  # so that it is far and has no credit for it
    records[2][1]["advantage"] = -3.0
    records[0][1]["hellinger"][2], records[0][1]["entropy"][2] = 0.5, 9.0
    opened = open_page(write_page(tmp_path, [record for each in records for record in each])[0])
    first = {}
    for order in ("credit", "d", "advantage"):
        opened.page.select_option("#order", order)
        first[order] = titles(opened)[0]
    assert first == {"credit": "Prompt plain", "d": "Prompt far", "advantage": "Prompt lopsided"}
    opened.page.select_option("#order", "mixed")
    assert titles(opened) == ["Prompt plain", "Prompt far", "Prompt lopsided"]
    opened.page.select_option("#prompt", label="far (1 of 2 right)")
    assert titles(opened) == ["Prompt far"]
    opened.page.keyboard.press("Escape")
    opened.page.keyboard.press("ArrowDown")
    opened.assert_clean()


def test_credit_as_good_as_uniform_is_said_where_the_tokens_are(open_page: Opener, mixed: Made) -> None:
    file, _, gated = mixed
    opened = open_page(file, height=600)
    assert gated[0].diagnostics["credit/ess"] > 0.999 > gated[1].diagnostics["credit/ess"]  # type: ignore[operator]
    plain = opened.page.locator("#plain")
    assert plain.inner_text().startswith("paper is as good as uniform here: effective share ")
    section(opened, "hard").scroll_into_view_if_needed()
    assert plain.bounding_box()["y"] >= 0  # it stays beside the tokens
    plain.get_by_role("button", name="Fit scale").click()
    assert "fitted" in opened.page.locator("#legend").inner_text()
    assert plain.get_by_role("button", name="Fit scale").count() == 0
    plain.get_by_role("button", name="Show calibrated").click()
    assert opened.page.locator(".gating[aria-checked=true] strong").inner_text() == "calibrated"
    assert not plain.is_visible()
    opened.assert_clean()
