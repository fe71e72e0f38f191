"""The pool: order, deadlines, memory and CPU limits, recycling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.errors import RewardError
from dgpo_cli.rewards.worker_pool import WorkerPool

MakePool = Callable[..., WorkerPool]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakePool]:
    pools: list[WorkerPool] = []

    def make_one(body: str, **options: float) -> WorkerPool:
        path = tmp_path / "work.py"
        path.write_text(f"import os, time\n\ndef work(prompt, completion, answer):\n    {body}\n")
        settings = {"size": 2, "timeout_seconds": 20.0, **options}
        pools.append(WorkerPool("function", f"{path}:work", **settings))  # type: ignore[arg-type]
        return pools[-1]

    yield make_one
    for pool in pools:
        pool.close()


def request(completion: str) -> dict[str, Any]:
    return {"places": ["", completion, ""], "named": {}}


def test_replies_come_in_the_order_of_the_requests(make: MakePool) -> None:
    pool = make("time.sleep(0.05 * (completion == '0')); return float(completion)")
    replies = pool.run([request(str(number)) for number in range(20)])
    assert [reply["score"] for reply in replies] == [float(number) for number in range(20)]


def test_a_worker_that_is_late_or_dies_costs_one_reply(make: MakePool) -> None:
    pool = make(
        "time.sleep(60 * (completion == 'late')); os._exit(1) if completion == 'dies' else None; return 1.0",
        timeout_seconds=0.7,
    )
    replies = pool.run([request(completion) for completion in ("", "late", "", "dies", "")])
    assert [reply.get("error") for reply in replies] == [None, "timeout", None, "died", None]
    assert pool.restarts == 2


def test_workers_run_side_by_side(make: MakePool) -> None:
    pool = make("time.sleep(0.5); return float(os.getpid())")
    pool.run([request("")] * 2)
    started = time.monotonic()
    assert len({reply["score"] for reply in pool.run([request("")] * 4)}) == 2
    assert time.monotonic() - started < 1.9  # 2.0 in a row


def test_a_worker_is_replaced_after_so_many_requests(make: MakePool) -> None:
    pool = make("return float(os.getpid())", size=1, recycle_after=2)
    pids = [reply["score"] for reply in pool.run([request("")] * 5)]
    assert len(set(pids)) == 3
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert pool.restarts == 0


def test_memory_is_limited(make: MakePool) -> None:
    pool = make("return float(len(bytearray(1 << 30)))", size=1, memory_bytes=512 << 20)
    assert "MemoryError" in pool.run([request("")])[0]["raised"]


def test_cpu_time_is_limited_even_where_the_deadline_is_far(make: MakePool) -> None:
    pool = make("[0 for _ in iter(int, 1)] if completion else 0; return 1.0", size=1, cpu_seconds=1)
    assert [reply.get("error") for reply in pool.run([request(""), request("loop"), request("")])] == [
        None,
        "died",
        None,
    ]


def test_a_worker_that_died_while_idle_takes_no_request_with_it(make: MakePool) -> None:
    pool = make("return float(os.getpid())", size=1)
    first = int(pool.run([request("")])[0]["score"])
    pool._workers[0].process.kill()
    pool._workers[0].process.wait()
    assert int(pool.run([request("")])[0]["score"]) != first


def test_an_interrupted_run_leaves_no_stale_replies(make: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make("time.sleep(0.3); return float(completion)", size=1)
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_receive", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.run([request("1")])
    assert [reply["score"] for reply in pool.run([request("2")])] == [2.0]


def test_a_worker_that_cannot_start_says_why() -> None:
    pool = WorkerPool("function", "/nowhere/none.py:work", size=1, timeout_seconds=1)
    with pytest.raises(RewardError, match=r"cannot start: FileNotFoundError"):
        pool.run([request("")])
    pool.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
