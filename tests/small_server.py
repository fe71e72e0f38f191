"""A small HTTP server on this machine, for answers that no well-behaved server gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What to answer: a record becomes JSON, bytes stay as they are."""

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    declared_length: int | None = None  # another Content-Length than the true one

    @property
    def data(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass
class Request:
    path: str
    payload: dict[str, Any] | None
    headers: dict[str, str]


class SmallServer:
    """Answers by `reply`, a function of a request and its running number, and remembers what it was asked."""

    def __init__(self, reply: Callable[[Request, int], Reply], port: int = 0) -> None:
        self.requests: list[Request] = []
        self.reply = reply
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def posts(self) -> list[dict[str, Any]]:
        return [request.payload for request in self.requests if request.payload is not None]

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_GET(self) -> None:
                self._answer(None)

            def _answer(self, payload: dict[str, Any] | None) -> None:
                request = Request(self.path, payload, dict(self.headers))
                with server._lock:
                    server.requests.append(request)
                    number = len(server.requests)
                reply = server.reply(request, number)
                try:
                    self.send_response(reply.status)
                    length = len(reply.data) if reply.declared_length is None else reply.declared_length
                    for name, value in {"Content-Length": str(length), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.data)
                except OSError:  # the client did not wait
                    pass

            def log_message(self, *_args: Any) -> None:
                pass

        return Handler


@contextmanager
def serving(reply: Callable[[Request, int], Reply], port: int = 0) -> Iterator[SmallServer]:
    server = SmallServer(reply, port)
    try:
        yield server
    finally:
        server.close()


def completion(text: str, *, chat: bool = False, finish_reason: str | None = "stop", tokens: int | None = 3) -> Reply:
    """A completion as such servers write it."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return Reply({"model": "served", "choices": [choice], **usage})
