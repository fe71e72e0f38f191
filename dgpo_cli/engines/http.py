"""JSON over HTTP with time-outs and retries, in the standard library alone. It knows nothing of completions.

The key is sent and never shown: it is taken out of whatever a server says. Redirects are refused, since following one
would hand the key to another host.

Not httpx: it has neither retries nor a deadline for the whole of an answer, takes twice as long for a request, and
huggingface_hub brings it under one name or another by its version. A connection a request costs little beside a
completion.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgpo_cli.errors import ServerError

LONGEST_WAIT = 60.0  # seconds of back-off; a server's own Retry-After may ask for more
SHOWN_CHARACTERS = 200
CHUNK = 1 << 16
LARGEST_ANSWER = 1 << 28  # bytes: far more than any completion
PASSING = (408, 409, 425, 429)  # and 5xx: the same request may be answered later
OF_THE_SERVER = (401, 402, 403, 404, 405, 429, 503)  # any other request would fail like this one
MORE_TIME = "engine.timeout_seconds, engine.retries and a smaller engine.concurrency give it more time"
START_IT = "start the server, or engine.url=http://HOST:PORT/v1 names another"


@dataclass(frozen=True)
class Answer:
    """What a server said. Errors for which another try is of no use are answers too."""

    status: int
    content: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The parsed content; None if it is not JSON."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    reason        a sentence
    cause         a word to count by
    wait_seconds  that the server asks for
    """

    reason: str
    cause: str
    wait_seconds: float | None = None
    connected: bool = True
    again: bool = True  # whether the same request may be answered later
    whole_server: bool = False
    hint: str = ""  # empty: the caller's


def _no_flaw(_: Answer) -> Failure | None:
    return None


class HttpClient:
    """Requests to one base address. Safe to use from several threads; `stop` ends their waiting."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: int = 5,
        timeout_seconds: float = 600.0,
        backoff_seconds: float = 1.0,
        absent_hint: str = START_IT,
    ) -> None:
        """absent_hint: what to do if nothing can be reached at the address."""
        self.url = url.rstrip("/")
        self.api_key = api_key
        self.retries = retries
        self.timeout_seconds = timeout_seconds
        self.backoff_seconds = backoff_seconds
        self.absent_hint = absent_hint
        self.stop = threading.Event()
        # A proxy of the environment can't reach this machine's own addresses.
        proxies = [urllib.request.ProxyHandler({})] if _is_loopback(self.url) else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def send(
        self,
        path: str,
        payload: dict[str, Any] | None = None,
        *,
        first: bool = False,
        hint: str = MORE_TIME,
        retries: int | None = None,
        flaw: Callable[[Answer], Failure | None] = _no_flaw,
    ) -> Answer:
        """GET, or POST with a payload. Status 408, 409, 425, 429 and 5xx are tried again; any other is returned.

        Args:
            first: don't try a server again that can't be reached: its address is wrong, or it is not running.
            hint: what to do if the server is there and fails.
            retries: in place of the client's.
            flaw: why an answer of status 2xx is none. Many servers and proxies answer 200 and put their error into the
                content.

        Raises:
            ServerError: no answer that can be returned, after all retries.
        """
        most = self.retries if retries is None else retries
        attempt = 0
        while True:
            outcome = self._attempt(path, payload)
            if isinstance(outcome, Answer):
                found = flaw(outcome) if outcome.is_good else None
                if found is None:
                    return outcome
                outcome = found
            asked = outcome.wait_seconds or 0.0
            hopeless = not outcome.again or (first and not outcome.connected) or asked > self.timeout_seconds
            if attempt >= most or hopeless or self.stop.is_set():
                raise self._gave_up(path, outcome, attempt + 1, hint)
            # The wait doubles each time. It is random, or requests that failed together would come back together.
            backoff = min(self.backoff_seconds * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0)
            if self.stop.wait(max(asked, backoff)):
                raise self._gave_up(path, outcome, attempt + 1, hint)
            attempt += 1

    def shown(self, text: str) -> str:
        """A server's words, short, on one line, without the key."""
        text = text.replace(self.api_key, "***") if self.api_key else text
        text = " ".join(text.split())
        return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."

    def _attempt(self, path: str, payload: dict[str, Any] | None) -> Answer | Failure:
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "dgpo"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if payload is None else json.dumps(payload).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        deadline = time.monotonic() + self.timeout_seconds
        try:
            # This time-out is for each wait on the socket; `_read` holds the whole answer to the deadline.
            with self._opener.open(request, timeout=self.timeout_seconds) as response:
                return Answer(response.status, _read(response, deadline))
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, _read_what_is_there(error, deadline))
            if error.code not in PASSING and error.code < 500:
                return answer
            return self._passing(answer, _retry_after(error.headers))
        except urllib.error.URLError as error:
            late = isinstance(error.reason, TimeoutError)
            return self._late() if late else self._unreachable(error.reason)
        except TimeoutError:
            return self._late()
        except (OSError, http.client.HTTPException, zlib.error, EOFError) as error:  # once it was connected
            return Failure(_words(error), "connection_lost")
        except UnicodeError:
            return self._unreachable("the host's name is no name")
        except ValueError as error:  # a redirect to what is no address
            return Failure(f"its answer cannot be read ({error})", "connection_lost")

    def _passing(self, answer: Answer, wait_seconds: float | None) -> Failure:
        reason = f"status {answer.status}: {self.shown(said(answer))}"
        whole_server = answer.status in OF_THE_SERVER
        return Failure(reason, f"status_{answer.status}", wait_seconds, whole_server=whole_server)

    def _late(self) -> Failure:
        return Failure(f"no answer within {self.timeout_seconds:g} s", "timeout")

    def _unreachable(self, reason: Any) -> Failure:
        return Failure(_words(reason), "unreachable", connected=False, whole_server=True, hint=self.absent_hint)

    def _gave_up(self, path: str, failure: Failure, attempts: int, hint: str) -> ServerError:
        tries = "" if attempts == 1 else f" ({attempts} attempts)"
        message = f"{self.url}: {path}: {failure.reason}{tries}"
        if failure.wait_seconds is not None and failure.wait_seconds > self.timeout_seconds:
            message = f"{self.url}: {failure.reason}, and asks to wait {failure.wait_seconds:g} s"
            hint = "a larger engine.timeout_seconds waits for it; a smaller engine.concurrency asks for less at a time"
        return ServerError(message, failure.hint or hint, cause=failure.cause, whole_server=failure.whole_server)


def said(answer: Answer) -> str:
    """The message in an error's JSON, at the places where servers put it; if there is none, the text."""
    record = answer.json()
    for name in ("error", "message", "detail"):
        while isinstance(record, dict) and record.get(name):
            record = record[name]
    if isinstance(record, str):
        return record
    if _is_page(answer.text):
        return "an HTML page"
    return answer.text or "an empty answer"


def _is_page(text: str) -> bool:
    start = text.lstrip()[:100].lower()
    return start.startswith(("<!doctype", "<html", "<head"))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _read(response: Any, deadline: float) -> bytes:
    """The whole content. The socket's own time-out begins anew with each byte, so a trickle needs a deadline too."""
    parts = []
    while part := response.read1(CHUNK):
        parts.append(part)
        if len(parts) * CHUNK > LARGEST_ANSWER and sum(map(len, parts)) > LARGEST_ANSWER:
            raise http.client.HTTPException("its answer is larger than any completion")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:  # bytes that were announced and never came: read1 ends without a word
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    return _plain(b"".join(parts), (response.headers.get("Content-Encoding") or "").strip().lower())


def _plain(content: bytes, encoding: str) -> bytes:
    """The content without compression. Nobody asks for it, and some proxies compress all the same."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return content
    opened = zlib.decompressobj(wbits=47)  # either header
    plain = opened.decompress(content, LARGEST_ANSWER)
    if opened.unconsumed_tail or not opened.eof:
        raise zlib.error("the compressed answer is cut, or larger than any completion")
    return plain


def _read_what_is_there(error: urllib.error.HTTPError, deadline: float) -> bytes:
    """The content of an error, or nothing if it can't be read: the status is enough."""
    try:
        return _read(error, deadline)
    except (OSError, http.client.HTTPException, zlib.error, EOFError):
        return b""


def _retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < float("inf") else None


def _words(error: Any) -> str:
    """An exception of the network in a few words."""
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.BadStatusLine):
        return "it does not speak HTTP"
    if isinstance(error, http.client.IncompleteRead):
        return "it closed the connection in the middle of an answer"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
