"""The way to the terminal: whatever came from outside leaves here what a terminal would act on.

A completion, a file name, a server's answer or a message of W&B may hold control characters: they move the cursor, set
the window's title, or turn the order of letters round. `visible` writes them as their escapes, and all that the program
says goes through it: lines by `say`, data by `put`, what rich draws by `reporting/clean_console.py`, and what others
print by a `CleanStream` or the formatter of warnings and logs. tests/test_terminal.py lets nobody else print.
Files stay exact, and so do data in a pipe.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

PATIENCE = 2.0  # seconds
BLOCK = "\n\t"  # what a text of several lines keeps


def visible(text: str, keep: str = "\n") -> str:
    """Text as it is, but each character that is not printable (control, direction, line separator) as its escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else repr(char)[1:-1] for char in text)


def say(text: str, *, label: str = "") -> None:
    """One line on stderr, whatever `text` holds. `label` stands before it as it is: it may have a colour."""
    print(f"{label} {visible(text, '')}" if label else visible(text, ""), file=sys.stderr, flush=True)


def say_block(text: str) -> None:
    """Lines on stderr, such as a traceback."""
    print(visible(text, BLOCK), file=sys.stderr, flush=True)


def put(text: str, end: str = "\n") -> None:
    """Data on stdout: exact in a pipe, where a program reads it; visible on a terminal."""
    if sys.stdout.isatty():
        print(visible(text, BLOCK), end=end, flush=True)
        return
    try:
        print(text, end=end, flush=True)
    except UnicodeEncodeError:  # a file name that is not UTF-8
        sys.stdout.buffer.write((text + end).encode("utf-8", errors="surrogateescape"))
        sys.stdout.buffer.flush()


@dataclass(eq=False)
class Phase:
    """Work that is being done."""

    text: str
    progress: str = ""  # how far it is: "30/120, 4 s left"
    thread: int = field(default_factory=threading.get_ident)
    started: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.text}: {self.progress}" if self.progress else self.text


_underway: list[Phase] = []  # of every thread, the latest to begin last
_viewers: list[object] = []  # views on the terminal that show the phase themselves


def current_phase() -> Phase | None:
    """The latest phase to begin of those that go on."""
    return next(reversed(_underway.copy()), None)


def tell_progress(text: str) -> None:
    """How far the phase is that this thread is in; nothing outside of any."""
    own = [one for one in _underway.copy() if one.thread == threading.get_ident()]
    if own:
        own[-1].progress = text


@contextlib.contextmanager
def showing_phases() -> Iterator[None]:
    """A view shows the current phase meanwhile: none is said as a line."""
    viewer = object()
    _viewers.append(viewer)
    try:
        yield
    finally:
        _viewers.remove(viewer)


@contextlib.contextmanager
def phase(text: str, after: float | None = None) -> Iterator[None]:
    """What is done within: it is said as soon as it lasts longer than a person waits in silence.

    after: seconds of that patience; math.inf: it is never said, and only a view shows it.
    """
    own = Phase(text)
    patience = PATIENCE if after is None else after
    timer = threading.Timer(patience, _say_unless_shown, args=(own,)) if math.isfinite(patience) else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    _underway.append(own)
    try:
        yield
    finally:
        _underway.remove(own)
        if timer is not None:
            timer.cancel()


def _say_unless_shown(one: Phase) -> None:
    if not _viewers:
        say(f"{one.text} ...")


@dataclass
class FirstPhases:
    """`phase` for work that comes again and again: said while it is done for the first time, then no longer."""

    seen: set[str] = field(default_factory=set)

    def __call__(self, kind: str, text: str) -> contextlib.AbstractContextManager[None]:
        if kind in self.seen:
            return phase(text, after=math.inf)
        self.seen.add(kind)
        return phase(text)


class CleanStream(io.TextIOBase):
    """A stream in front of another one, for what other code prints."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text, BLOCK))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding


@contextlib.contextmanager
def cleaned_output() -> Iterator[None]:
    """What others print on stdout meanwhile goes to a terminal clean, and to a pipe as it is."""
    with contextlib.redirect_stdout(CleanStream(sys.stdout)) if sys.stdout.isatty() else contextlib.nullcontext():
        yield


class CleanFormatter(logging.Formatter):
    """Of log lines, in conf/hydra/."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), BLOCK)


_format_warning = warnings.formatwarning


def _clean_warning(*args: object, **options: object) -> str:
    return visible(_format_warning(*args, **options), BLOCK)  # type: ignore[arg-type]


def clean_what_libraries_say() -> None:
    """Python's warnings, and logs of libraries that nobody has set up, go the same way."""
    warnings.formatwarning = _clean_warning
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(CleanFormatter())
