"""A server on this machine that answers as the Hugging Face Hub does when a repository is made and committed to."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HubStandIn:
    """Keeps what it was sent. It takes each file as text of the commit: no large-file storage stands beside it."""

    def __init__(self, *, refuses: tuple[str, ...] = ()) -> None:
        self.refuses = refuses  # parts of addresses that are answered with 403
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.tokens: set[str | None] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if any(part in path for part in self.refuses):
            return 403, {"error": "this token may not write"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.url}/{self.created[-1]['organization']}/{self.created[-1]['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            asked = [one["path"] for one in json.loads(body)["files"]]
            return 200, {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
        if "/commit/" in path:
            self._take(body)
            return 200, {"commitUrl": f"{self.url}/me/model/commit/{'0' * 40}", "commitOid": "0" * 40}
        return 404, {"error": f"{path} is not known here"}

    def _take(self, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "header":
                self.messages.append(entry["value"]["summary"])
            else:
                self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._reply(self.rfile.read(int(self.headers["Content-Length"])))

            def do_GET(self) -> None:
                self._reply(b"")

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.end_headers()

            def _reply(self, body: bytes) -> None:
                hub.tokens.add(self.headers.get("Authorization"))
                status, content = hub.answer(self.path.partition("?")[0], body)
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args: Any) -> None:
                pass

        return Handler


@contextmanager
def hub_stand_in(*, refuses: tuple[str, ...] = ()) -> Iterator[HubStandIn]:
    hub = HubStandIn(refuses=refuses)
    try:
        yield hub
    finally:
        hub.close()
