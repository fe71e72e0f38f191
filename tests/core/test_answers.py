"""What counts as the same integer, and where a box ends."""

from __future__ import annotations

import time

import pytest

from dgpo_cli.core.answers import find_boxes, integer_of, reduced_gold


@pytest.mark.parametrize(
    "text",
    [
        "73",
        " 73 ",
        "073",
        "73.0",
        "73.",
        "$73$",
        "$73$.",
        "$73.$",
        r"\(73\)",
        r"\[73\]",
        "**73**",
        "**73**.",
        "`73`",
        r"73^\circ",
        r"73^{\circ}",
        "73°",
        r"m+n=73",
        r"$m + n = 73$",
        r"x_{1}+x_2=73",
        r"f(10)=73",
        r"73\text{ cm}",
        r"73 \text{ square units}",
        r"73\mathrm{~cm}^2",
        r"\text{73}",
        r"\mathbf{73}",
        r"\$73",
        "73 dollars",
        "73<|im_end|>",
        "73</s>",
        "+73",
    ],
)
def test_decorations_of_an_integer_come_off(text: str) -> None:
    assert integer_of(text) == "73"


@pytest.mark.parametrize(
    "text",
    [
        r"73\%",
        "73, 74",
        "73 74",
        "73 or 74",
        "74=73",
        "2x=73",
        r"x^2=73",
        r"x=72=73",
        r"73\text{ million}",
        r"73\text{ or }74",
        r"73\text{ or }",
        "7,3",
        "12,34",
        "2**10",
        "73.5",
        r"\frac{146}{2}",
        "73!",
        "",
        "seven",
        "73...",
        "³",
        "٧٣",
        "9" * 100_000,
    ],
)
def test_lists_percentages_and_equations_are_no_integers(text: str) -> None:
    assert integer_of(text) is None


@pytest.mark.parametrize("text", ["1234", "1,234", "1{,}234", r"1,\!234", r"1\,234", "1,234.00", "01234"])
def test_thousands_are_separated_in_many_ways(text: str) -> None:
    assert integer_of(text) == "1234"


def test_signs_count_and_minus_zero_is_zero() -> None:
    assert [integer_of(text) for text in ("-73", "\u221273", "-0", "- 5")] == ["-73", "-73", "0", "-5"]


@pytest.mark.parametrize(
    ("gold", "reduced"),
    [
        (r"336^\circ", "336"),
        ("070", "70"),
        ("27.0", "27"),
        ("1,234", "1234"),
        ("She makes 9 * 2 = $18.\n#### 18", "18"),
        ("so 700 + 534\n#### 1,234", "1234"),
        (r"It follows that $\boxed{1.6}$ cm, as in \fbox{no}.", "no"),
        (r"the root is $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        ("x=5", "5"),
        (r" \frac{1}{2} ", r"\frac{1}{2}"),
        ("x+y=0", "x+y=0"),  # the equation of a line, not 0
        (r"y^{\prime}+r y=0", r"y^{\prime}+r y=0"),
    ],
)
def test_golds_are_reduced(gold: str, reduced: str) -> None:
    assert reduced_gold(gold) == reduced


def test_boxes_are_balanced_outermost_and_in_order() -> None:
    text = (
        r"\boxed{1} and \boxed{\frac{1}{2}}, \fbox{3}, \boxed 73$, \boxed{\boxed{5}+1}, \boxed{\{6\}} \boxed{cut {off}"
    )
    assert [box.content for box in find_boxes(text)] == ["1", r"\frac{1}{2}", "3", "73", r"\boxed{5}+1", r"\{6\}"]


def test_a_box_after_double_backslashes_is_found() -> None:
    assert [box.content for box in find_boxes(r"x\\\boxed{1} \\boxed{2}")] == ["1", "2"]


@pytest.mark.parametrize("text", ["\\" * 200_000, "{" * 200_000 + r"\boxed{", r"\boxed{" * 30_000, "}" * 200_000])
def test_scanning_for_boxes_is_one_pass(text: str) -> None:
    started = time.process_time()
    assert find_boxes(text + r"\boxed ") == []
    assert time.process_time() - started < 2
