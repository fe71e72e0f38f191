"""Processes that meet in a store which outlives them: each attempt at a run finds its own members alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch._C._distributed_c10d import TCPStore

from dgpo_cli.environment import STORE, Place
from dgpo_cli.errors import RunError
from dgpo_cli.meeting import Meeting, meet


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """The store of a launcher that starts its processes again."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.delenv(STORE, raising=False)
    for name, value in {"ADDR": "127.0.0.1", "PORT": str(store.port)}.items():
        monkeypatch.setenv(f"MASTER_{name}", value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return store


def met(*ranks: int) -> list[Meeting]:
    """Ranks of two that come in this order, the last a while after the first."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, Place(ranks[0], 2, ranks[0]), 20.0)
        with pytest.raises(TimeoutError):
            first.result(timeout=0.3)
        last = pool.submit(meet, Place(ranks[1], 2, ranks[1]), 20.0)
        return [first.result(), last.result()]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_later_attempt_reads_nothing_of_an_earlier_one(agent: TCPStore, order: tuple[int, int]) -> None:
    for attempt in ("first", "second", "third"):
        one, other = met(*order)
        assert not one.store.check(["address"]), "left by an earlier attempt"
        one.store.set("address", attempt)
        assert other.store.get("address").decode() == attempt
        one.board.post(f"1 1 {attempt}")
        assert other.board.read() == {one.here.rank: f"1 1 {attempt}"}


def test_who_is_missing_is_named_though_an_earlier_attempt_had_it(agent: TCPStore) -> None:
    met(0, 1)
    for rank, missing in ((0, 1), (1, 0)):
        with pytest.raises(RunError, match=f"rank {missing} of 2 did not join within 0.2 s"):
            meet(Place(rank, 2, rank), 0.2)
