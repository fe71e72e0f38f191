"""Numbers with units against each other."""

from __future__ import annotations

import pytest

from dgpo_cli.core.quantities import quantity_of, same_quantity


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("48", "48 USD", True),
        (r"10\text{ minutes}", "600 s", True),
        (r"10\text{ minutes}", "10 hours", False),
        (r"35\%", "0.35", True),
        (r"35\%", "35", True),
        ("73", r"73\%", False),
        ("3041_7", "3041", True),
        ("3041_7", "1058", False),  # 3 * 343 + 4 * 7 + 1
        (r"2\text{ million}", "2000000", True),
    ],
)
def test_same_quantity(gold: str, answer: str, same: bool) -> None:
    right, given = quantity_of(gold), quantity_of(answer)
    assert right is not None
    assert given is not None
    assert same_quantity(right, given) is same


def test_every_way_to_write_a_number_reads_the_same() -> None:
    assert {str(quantity_of(text)) for text in (r"35\%", "0.35", "7/20", "35 percent", r"\frac{14}{40}")} == {"7/20"}
