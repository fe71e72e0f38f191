"""Dealing requests over servers: small ones of ours, that are slow, refuse, or go away in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from small_server import Reply, Request, SmallServer

from dgpo_cli.engines.vllm import fleet as dealing
from dgpo_cli.engines.vllm.client import Drawn, Limits, VllmClient
from dgpo_cli.engines.vllm.fleet import Fleet
from dgpo_cli.errors import ServerError
from dgpo_cli.types import Sampling

LIMITS = Limits(vocabulary_size=1000, stop_ids=frozenset())
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=1)


def echo(request: Request, number: int = 0) -> Reply:
    """One token, the seed."""
    if request.payload is None:
        return Reply(b"")
    one = request.payload["sampling_params"]["seed"]
    choice: dict[str, Any] = {"finish_reason": "length", "token_ids": [one]}
    choice["logprobs"] = {"content": [{"token_id": one, "logprob": -1.0}]}
    choice["weight_versions"] = [{"version": "default", "start": 0, "end": 1}]
    return Reply({"choices": [choice]})


@contextmanager
def fleet_of(*replies: Any, concurrency: int = 4, retries: int = 2) -> Iterator[tuple[Fleet, list[SmallServer]]]:
    with ExitStack() as stack:
        servers = [SmallServer(reply) for reply in replies]
        for server in servers:
            stack.callback(server.close)
        clients = [VllmClient(server.url.removesuffix("/v1"), LIMITS, timeout_seconds=5.0) for server in servers]
        fleet = Fleet(clients, concurrency=concurrency, retries=retries)
        stack.callback(fleet.close)
        yield fleet, servers


def ask(client: VllmClient, position: int) -> Drawn:
    return client.complete([1], seed=position, sampling=SAMPLING)


def tokens(found: dict[int, Drawn]) -> dict[int, int]:
    return {position: drawn.token_ids[0] for position, drawn in found.items()}


def size(drawn: Drawn) -> int:
    return len(drawn.token_ids)


def test_every_request_is_answered_once_and_all_servers_take_part() -> None:
    def slowly(request: Request, number: int) -> Reply:
        time.sleep(0.02)
        return echo(request)

    with fleet_of(slowly, slowly) as (fleet, servers):
        dealt = fleet.deal(range(40), ask, size=size)
        assert tokens(dealt.found) == {position: position for position in range(40)}
        assert sum(len(server.posts()) for server in servers) == 40
        assert all(server.posts() for server in servers)


def test_no_server_gets_more_at_a_time_than_it_may() -> None:
    at_a_time, most, lock = 0, 0, threading.Lock()

    def counted(request: Request, number: int) -> Reply:
        nonlocal at_a_time, most
        with lock:
            at_a_time += 1
            most = max(most, at_a_time)
        time.sleep(0.02)
        with lock:
            at_a_time -= 1
        return echo(request)

    with fleet_of(counted, concurrency=3) as (fleet, _):
        fleet.deal(range(20), ask, size=size)
    assert most == 3


def test_what_a_dead_server_took_is_asked_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server cuts every connection from its third answer on, and is not well afterwards."""
    monkeypatch.setattr(dealing, "HEALTH_WAIT", 0.01)

    def dying(request: Request, number: int) -> Reply:
        return echo(request) if number < 3 else Reply(b"", declared_length=100)

    with fleet_of(dying, echo) as (fleet, _):
        dealt = fleet.deal(range(30), ask, size=size)
        assert tokens(dealt.found) == {position: position for position in range(30)}
        assert fleet.dead == {0}
        assert tokens(fleet.deal(range(5), ask, size=size).found) == {position: position for position in range(5)}


def test_when_all_servers_are_dead_the_rest_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealing, "HEALTH_WAIT", 0.01)

    def dying(request: Request, number: int) -> Reply:
        return echo(request) if number <= 3 else Reply(b"", declared_length=100)

    with fleet_of(dying, concurrency=1) as (fleet, _):
        dealt = fleet.deal(range(10), ask, size=size)
    assert tokens(dealt.found) == {0: 0, 1: 1, 2: 2}
    assert dealt.open(range(10)) == list(range(3, 10))
    assert dealt.lost is not None
    assert "closed the connection" in str(dealt.lost)


def test_a_request_that_fails_now_and_then_is_asked_again() -> None:
    def busy(request: Request, number: int) -> Reply:
        return Reply(b"busy", status=503) if number % 2 else echo(request)

    with fleet_of(busy, concurrency=1) as (fleet, servers):
        dealt = fleet.deal(range(2), ask, size=size)
        assert tokens(dealt.found) == {0: 0, 1: 1}
        assert len(servers[0].posts()) == 4


def test_a_request_that_is_refused_fails_alone_and_at_once() -> None:
    def refusing(request: Request, number: int) -> Reply:
        assert request.payload is not None
        bad = request.payload["sampling_params"]["seed"] == 2
        return Reply({"error": "too long"}, status=400) if bad else echo(request)

    with fleet_of(refusing) as (fleet, servers):
        dealt = fleet.deal(range(4), ask, size=size)
        assert tokens(dealt.found) == {0: 0, 1: 1, 3: 3}
        assert "too long" in str(dealt.failed[2])
        assert len(servers[0].posts()) == 4


def test_a_failure_that_stays_is_given_up_after_the_retries() -> None:
    with fleet_of(lambda request, number: Reply(b"", status=500), concurrency=1, retries=1) as (fleet, servers):
        dealt = fleet.deal([0], ask, size=size)
        assert isinstance(dealt.failed[0], ServerError)
        assert dealt.failed[0].cause == "status_500"
        assert len(servers[0].posts()) == 2


def test_what_a_tick_raises_ends_the_call_though_a_completion_is_minutes_away() -> None:
    released = threading.Event()

    def hanging(request: Request, number: int) -> Reply:
        released.wait(20)
        return echo(request)

    def tick() -> None:
        if servers[0].requests:
            raise KeyboardInterrupt

    with fleet_of(hanging) as (fleet, servers):
        try:
            with pytest.raises(KeyboardInterrupt):
                fleet.deal(range(3), ask, size=size, tick=tick)
            assert not released.is_set()
        finally:
            released.set()


def test_progress_is_told_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealing, "LINE_EVERY", 0.0)
    monkeypatch.setattr(dealing, "TICK", 0.01)

    def slowly(request: Request, number: int) -> Reply:
        time.sleep(0.05)
        return echo(request)

    lines: list[str] = []
    with fleet_of(slowly, concurrency=1) as (fleet, _):
        fleet.deal(range(4), ask, size=size, tell=lines.append)
    assert lines[0].startswith("vllm: 0 of 4 completions, 0 tokens/s, longest running ")
    assert any(line.startswith("vllm: 3 of 4 completions") for line in lines)


def test_a_bug_in_asking_is_no_failure_of_a_server() -> None:
    def broken(client: VllmClient, position: int) -> Drawn:
        raise ZeroDivisionError

    with fleet_of(echo) as (fleet, _), pytest.raises(ZeroDivisionError):
        fleet.deal(range(3), broken, size=size)
