"""Where every random number comes from: seeds derived by name, the order of the data, the uniforms of a sample.

Nothing here has a state: each result is a function of its arguments alone, on every machine and version. Only the raw
output of NumPy's Philox bit generator is used: NumPy promises that stream, and not that of its Generator's methods.
"""

from __future__ import annotations

import hashlib
import json
import operator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a path of names and numbers: `derive_seed("eval", seed, problem, sample)`.

    Different paths give independent seeds. The encoding is unambiguous: (1, 23) and (12, 3) differ, as do 1 and "1".
    Raises TypeError for anything that is neither a string nor an integer.
    """
    path = [part if isinstance(part, str) else operator.index(part) for part in parts]
    digest = hashlib.sha256(json.dumps(path).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_order(seed: int, epoch: int, count: int) -> list[int]:
    """The order in which an epoch visits `count` rows: a permutation of range(count), drawn anew for each epoch."""
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    draws = np.random.Philox(key=derive_seed("order", seed, epoch)).random_raw(count)
    order: list[int] = np.argsort(draws, kind="stable").tolist()
    return order


@lru_cache(maxsize=4)
def _cached_order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    return tuple(epoch_order(seed, epoch, count))


def drawn_index(seed: int, draw: int, count: int) -> int:
    """The row that draw number `draw` (from 0) takes: position draw % count of epoch draw // count.

    Each row is drawn once before any is drawn again. Raises ValueError when there are no rows, or for a negative draw.
    """
    if count < 1:
        raise ValueError(f"there must be at least one row to draw from, got {count}")
    if draw < 0:
        raise ValueError(f"draw must be at least 0, got {draw}")
    return _cached_order(seed, draw // count, count)[draw % count]


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for one sample, 53 random bits each  # [count]

    `seed` is at least 0 and below 2**128, as `derive_seed` gives it. The first k of `uniforms(seed, n)` are
    `uniforms(seed, k)`: a sample that is allowed more tokens begins with the same ones.
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    raw = np.asarray(np.random.Philox(key=seed).random_raw(count), dtype=np.uint64)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
