"""The shape of an answer."""

from __future__ import annotations

import pytest

from dgpo_cli.rewards.structure import Shape, figure_of, interval_of, same_shape, shape_of, time_of


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("(1,2)", Shape("()", ("1", "2"))),
        (r"\left(3, 4\right]", Shape("(]", ("3", "4"))),
        (r"\{1\pm\sqrt{5},-2\}", Shape("{}", (r"1+\sqrt{5}", r"1-\sqrt{5}", "-2"))),
        (r"7 \text{ and } 9", Shape("list", ("7", "9"))),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", Shape("matrix", ("1", "2", "3", "4"), 2)),
        ("(a)(b)", Shape("one", ("(a)(b)",))),
        ("x = 5", Shape("one", ("5",))),
    ],
)
def test_shapes(text: str, shape: Shape) -> None:
    assert shape_of(text) == shape


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [("(1,2)", r"\{1,2\}", False), ("1,2", "2,1", True), ("(1,2)", "(2,1)", False), ("x=1,y=2", "x=2,y=1", False)],
)
def test_order_counts_in_pairs_alone(gold: str, answer: str, same: bool) -> None:
    assert same_shape(gold, answer, lambda one, other: one == other) is same


def test_readings_of_single_answers() -> None:
    assert time_of(r"3:30\text{ pm}") == (210, "p") == time_of("15:30")
    assert figure_of(r"\angle ABC") == ("angle", "ABC") == figure_of(r"\angle CBA")
    assert interval_of(r"0 < x \le 1") == "(0, 1]"
    assert interval_of("x > 5") == r"(5, \infty)"
