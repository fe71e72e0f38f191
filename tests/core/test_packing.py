"""Rows in lists: none too full, none left out, no round more than needed, and work for each process of a round."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dgpo_cli.core.packing import packed_rows


def test_sixteen_sequences_of_about_one_size_are_one_round_of_four() -> None:
    """560 tokens, so 140 for each of four: a cut at 140 would put three in a list, and make two rounds of six lists."""
    sizes = {row: 33 + row % 5 for row in range(16)}
    lists = packed_rows(sizes, tokens=200, at_once=4)
    assert [len(rows) for rows in lists] == [4] * 4
    assert max(sum(sizes[row] for row in rows) for rows in lists) <= 143


def test_a_round_that_only_uneven_lists_fill_is_found_too() -> None:
    """5 + 4, 3 + 3 + 3: each to the emptiest of two would be 5 + 3 and 4 + 3, with no room of 9 left for the last."""
    assert sorted(packed_rows({0: 5, 1: 4, 2: 3, 3: 3, 4: 3}, tokens=9)) == [[0, 1], [2, 3, 4]]


def test_a_row_larger_than_a_list_has_one_of_its_own() -> None:
    assert packed_rows({0: 3, 1: 50, 2: 4}, tokens=10) == [[1], [2, 0]]
    assert packed_rows({}, tokens=10, at_once=4) == []


class Counted(dict[int, int]):
    """Sizes that count how often they are asked for."""

    asked = 0

    def __getitem__(self, row: int) -> int:
        self.asked += 1
        return super().__getitem__(row)


def test_rows_of_which_no_two_share_a_list_take_no_search() -> None:
    """Each is asked for a few times, not once for each other row or number of rounds."""
    sizes = Counted({row: 1030 + row % 70 for row in range(2000)})
    assert len(packed_rows(sizes, tokens=2048, at_once=8)) == 2000
    assert sizes.asked < 20 * len(sizes)


@given(
    st.dictionaries(st.integers(0, 99), st.integers(1, 60), max_size=40), st.integers(20, 200), st.sampled_from([1, 3])
)
def test_lists_hold_every_row_once_within_their_tokens(sizes: dict[int, int], tokens: int, at_once: int) -> None:
    lists = packed_rows(sizes, tokens=tokens, at_once=at_once)
    assert sorted(row for rows in lists for row in rows) == sorted(sizes)
    loads = [sum(sizes[row] for row in rows) for rows in lists]
    assert loads == sorted(loads, reverse=True)
    assert all(load <= tokens or len(rows) == 1 for load, rows in zip(loads, lists, strict=True))
    assert len(lists) >= min(at_once, len(sizes))
