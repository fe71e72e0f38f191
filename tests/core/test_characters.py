"""Characters that stand for the same thing."""

from __future__ import annotations

import pytest

from dgpo_cli.core.characters import plain_characters


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("４８", "48"),
        ("–48", "-48"),
        ("48。", "48."),
        ("x²", "x^{2}"),
        ("√5", r"\sqrt{5}"),
        ("10–12", r"10\text{ to }12"),
    ],
)
def test_one_spelling(text: str, plain: str) -> None:
    assert plain_characters(text) == plain


def test_digits_of_other_scripts_stay() -> None:
    assert plain_characters("٧٣") == "٧٣"
