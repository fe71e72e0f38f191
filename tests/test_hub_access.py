"""Whether the hub answers, asked of servers that answer, refuse and keep silent."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgpo_cli.errors import DataError
from dgpo_cli.hub_access import hub_answers, is_cached, is_on_the_hub
from dgpo_cli.models.loading import load_model


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers.cache_clear()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_any_answer_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)  # 501 to everything
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        assert hub_answers()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_silence_and_refusal_are_no_answer(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", silent)
    assert not hub_answers(0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    hub_answers.cache_clear()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    assert not hub_answers()


def test_a_model_is_refused_in_one_line_if_the_hub_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="could be fetched from the hub: it gave no answer"):
        load_model("someone/something")


def test_what_is_on_the_hub_and_what_is_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_on_the_hub("someone/something")
    assert not is_on_the_hub("bundled:tiny")
    assert not is_on_the_hub(str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert not is_cached("someone/something")
    (tmp_path / "models--someone--something" / "snapshots").mkdir(parents=True)
    assert is_cached("someone/something")
