"""Requests to servers that fail: a real server on this machine, misbehaving on purpose."""

from __future__ import annotations

import socket
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest
from small_server import Reply, Request, serving

from dgpo_cli.engines.http import HttpClient
from dgpo_cli.errors import RunError


def client(url: str, **changes: Any) -> HttpClient:
    settings: dict[str, Any] = {"retries": 2, "timeout_seconds": 5.0, "backoff_seconds": 0.01} | changes
    return HttpClient(url, **settings)


def one_line(error: RunError) -> str:
    [problem] = error.problems
    assert "\n" not in problem.message
    assert problem.hint
    return problem.message


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503, 529])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(lambda _, number: Reply({"number": number}, 200 if number == 3 else status)) as server:
        assert client(server.url).send("/models").json() == {"number": 3}


def test_a_server_that_stays_broken_is_given_up_after_the_retries() -> None:
    with serving(lambda _, __: Reply({"error": {"message": "out of\nmemory"}}, 500)) as server:
        with pytest.raises(RunError) as caught:
            client(server.url).send("/models")
        assert len(server.requests) == 3  # once, and 2 retries
    assert one_line(caught.value).endswith("/models: status 500: out of memory (3 attempts)")


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_other_refusals_are_returned_at_once(status: int) -> None:
    with serving(lambda _, __: Reply({"detail": "no"}, status)) as server:
        assert client(server.url).send("/models").status == status
        assert len(server.requests) == 1


def test_retry_after_is_waited_for() -> None:
    replies = [Reply({}, 429, {"Retry-After": "0.5"}), Reply({"fine": True})]
    with serving(lambda _, number: replies[number - 1]) as server:
        started = time.monotonic()
        assert client(server.url).send("/models").json() == {"fine": True}
    assert time.monotonic() - started >= 0.5


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_beyond_the_time_out_is_said_and_not_waited_for(form: str) -> None:
    value = "3600" if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
    with serving(lambda _, __: Reply({}, 429, {"Retry-After": value})) as server:
        with pytest.raises(RunError) as caught:
            client(server.url).send("/models")
        assert len(server.requests) == 1
    assert "asks to wait 3" in one_line(caught.value)


def test_nothing_that_listens_is_said_at_once_on_first_contact_and_after_retries_later() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(RunError) as at_once:
            client(url, backoff_seconds=60.0).send("/models", first=True)
        with pytest.raises(RunError) as later:
            client(url).send("/models")
    assert one_line(at_once.value) == f"{url}: /models: nothing listens there (connection refused)"
    assert one_line(later.value) == f"{url}: /models: nothing listens there (connection refused) (3 attempts)"


def test_an_answer_that_is_late_is_a_failure() -> None:
    def late(_: Request, __: int) -> Reply:
        time.sleep(0.5)
        return Reply({})

    with serving(late) as server, pytest.raises(RunError) as caught:
        client(server.url, timeout_seconds=0.1, retries=1).send("/models")
    assert one_line(caught.value).endswith("no answer within 0.1 s (2 attempts)")


def test_a_trickle_of_bytes_does_not_outlast_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(40):
                    time.sleep(0.05)
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(RunError, match=r"no answer within 0\.3 s"):
            client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=0.3, retries=0).send("/models")
        thread.join()


def test_an_answer_that_is_cut_short_is_asked_for_again() -> None:
    replies = [Reply({"a": 1}, declared_length=1000), Reply({"a": 1})]
    with serving(lambda _, number: replies[number - 1]) as server:
        assert client(server.url).send("/models").json() == {"a": 1}


def test_something_that_does_not_speak_http_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-server\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(RunError, match="does not speak HTTP"):
            client(f"http://127.0.0.1:{listener.getsockname()[1]}", retries=0).send("/models")
        thread.join()


def test_the_key_is_sent_and_never_shown() -> None:
    key = "sk-secret-0123456789"

    def echo(request: Request, _: int) -> Reply:
        return Reply({"error": {"message": f"bad header {request.headers['Authorization']}"}}, 500)

    with serving(echo) as server, pytest.raises(RunError) as caught:
        client(server.url, api_key=key, retries=0).send("/models")
    assert "bad header Bearer ***" in one_line(caught.value)
    assert key not in str(caught.value)


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with serving(lambda _, __: Reply({"data": []})) as other:
        moved = Reply(b"", 302, {"Location": other.url + "/models"})
        with serving(lambda _, __: moved) as server:
            assert client(server.url, api_key="sk-secret").send("/models").status == 302
        assert other.requests == []


def test_stop_ends_the_waiting() -> None:
    with serving(lambda _, __: Reply({}, 503)) as server:
        patient = client(server.url, backoff_seconds=60.0)
        patient.stop.set()
        with pytest.raises(RunError):
            patient.send("/models")
