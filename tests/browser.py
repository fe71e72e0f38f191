"""A real Chromium for tests of HTML pages, and what such a page must never do: log an error or ask the network.

`browser` and `open_page` are fixtures (see conftest.py). Chromium is named by CHROMIUM, found on the PATH, or
playwright's own; tests/install_chromium.sh gets one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MISSING = "no Chromium to open the page with: bash tests/install_chromium.sh installs one (or CHROMIUM=FILE names it)"


def chromium_path(own: str) -> str | None:
    """The program to run: CHROMIUM, one on the PATH, or playwright's `own`; None where there is none."""
    named = os.environ.get("CHROMIUM")
    candidates = [named] if named else [*(shutil.which(name) for name in NAMES), own]
    return next((path for path in candidates if path and Path(path).is_file()), None)


@dataclass
class OpenPage:
    """A page and everything it said or asked for. `clean` is what every page of ours must be."""

    page: Any  # playwright's Page
    address: str
    errors: list[str] = field(default_factory=list)  # console errors and warnings, uncaught exceptions
    requests: list[str] = field(default_factory=list)  # everything asked for but the page itself

    def assert_clean(self) -> None:
        assert self.errors == []
        assert self.requests == []


Opener = Callable[..., OpenPage]


def launch() -> Iterator[Any]:
    """The body of the `browser` fixture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = chromium_path(playwright.chromium.executable_path)
        if path is None:
            pytest.fail(MISSING, pytrace=False)
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


def opener(browser: Any) -> Iterator[Opener]:
    """The body of the `open_page` fixture: open_page(file, theme="dark", width=1280, height=800) -> OpenPage."""
    contexts = []

    def open_page(file: Path, *, theme: str = "light", width: int = 1280, height: int = 800) -> OpenPage:
        context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": height})
        context.set_default_timeout(10_000)
        contexts.append(context)
        opened = OpenPage(context.new_page(), file.resolve().as_uri())
        opened.page.on(
            "console",
            lambda message: opened.errors.append(message.text) if message.type in ("error", "warning") else None,
        )
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on(
            "request",
            lambda request: (
                opened.requests.append(request.url) if request.url.split("#")[0] != opened.address else None
            ),
        )
        opened.page.goto(opened.address)
        return opened

    yield open_page
    for context in contexts:
        context.close()
