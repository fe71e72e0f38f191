"""Which sequences share a packed micro-batch: as few rounds as can be found, and about equal work within each.

A round is a micro-batch for each of several processes. With sharded weights all of them gather the whole model for it,
whether each has work in it or not.
"""

from __future__ import annotations

import heapq


def packed_rows(sizes: dict[int, int], *, tokens: int, at_once: int = 1) -> list[list[int]]:
    """The rows in lists of at most `tokens` together, the fullest first; a larger row is a list of its own.

    sizes: tokens of each row. at_once: lists that make up a round. If rows are enough, none of a round stays without.
    """
    order = sorted(sizes, key=lambda row: (-sizes[row], row))
    first_fit = _first_fit(order, sizes, tokens)
    most = -(-len(first_fit) // at_once)
    fewest = max(1, -(-sum(sizes.values()) // (tokens * at_once)))
    levelled = (_levelled(order, sizes, tokens, rounds * at_once) for rounds in range(fewest, most + 1))
    found = next((lists for lists in levelled if lists is not None), first_fit)
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


def _first_fit(order: list[int], sizes: dict[int, int], tokens: int) -> list[list[int]]:
    """Rows, largest first, each to the first list that has room for it. Never many lists too much, but uneven ones."""
    lists: list[list[int]] = []
    held: list[int] = []
    for row in order:
        place = next((place for place, count in enumerate(held) if count + sizes[row] <= tokens), None)
        if place is None:
            lists.append([row])
            held.append(sizes[row])
        else:
            lists[place].append(row)
            held[place] += sizes[row]
    return lists
