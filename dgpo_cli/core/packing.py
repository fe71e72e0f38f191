"""Which sequences share a packed micro-batch: as few rounds as can be found, and about equal work within each.

A round is a micro-batch for each of several processes. With sharded weights all of them gather the whole model for it,
whether each has work in it or not.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort


def packed_rows(sizes: dict[int, int], *, tokens: int, at_once: int = 1) -> list[list[int]]:
    """The rows in lists of at most `tokens` together, the fullest first; a larger row is a list of its own.

    sizes: tokens of each row. at_once: lists that make up a round. If rows are enough, none of a round stays without,
    but where only uneven lists fit.
    """
    order = sorted(sizes, key=lambda row: (-sizes[row], row))
    found = _best_fit(order, sizes, tokens)
    most = -(-len(found) // at_once)
    # Down from the best fit, which is seldom beaten by far. Up from the sum of all tokens would be half as many tries
    # as there are rows, if each takes more than half of a list.
    for rounds in range(most, 0, -1):
        levelled = _levelled(order, sizes, tokens, rounds * at_once)
        if levelled is None:
            break
        found = levelled
    return sorted(found, key=lambda rows: (-sum(sizes[row] for row in rows), rows))


def _levelled(order: list[int], sizes: dict[int, int], tokens: int, count: int) -> list[list[int]] | None:
    """Rows, largest first, each to the emptiest of so many lists; None if one has no room for what comes to it."""
    heap = [(0, place) for place in range(count)]
    lists: list[list[int]] = [[] for _ in heap]
    for row in order:
        held, place = heap[0]
        if held and held + sizes[row] > tokens:
            return None
        lists[place].append(row)
        heapq.heapreplace(heap, (held + sizes[row], place))
    return [rows for rows in lists if rows]


def _best_fit(order: list[int], sizes: dict[int, int], tokens: int) -> list[list[int]]:
    """Rows, largest first, each to the fullest list that has room for it. Seldom a list too much, but uneven ones."""
    lists: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens that a list has room for, its place), the fullest first
    for row in order:
        size = sizes[row]
        fullest = bisect_left(rooms, (size, 0))
        if fullest < len(rooms):
            room, place = rooms.pop(fullest)
        else:
            room, place = tokens, len(lists)
            lists.append([])
        lists[place].append(row)
        insort(rooms, (room - size, place))
    return lists
