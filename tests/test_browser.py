"""The watch over pages is awake: what a page logs and asks for is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import MISSING, Opener, chromium_path


def test_a_page_that_logs_an_error_or_asks_for_something_is_caught(open_page: Opener, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><script>console.error('oh')</script><script src='missing.js'></script>")
    opened = open_page(file)
    assert "oh" in opened.errors
    assert opened.requests == [(tmp_path / "missing.js").as_uri()]
    with pytest.raises(AssertionError):
        opened.assert_clean()


def test_a_quiet_page_is_clean_and_sees_the_theme(open_page: Opener, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><p>quiet</p>")
    opened = open_page(file, theme="dark")
    assert opened.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    opened.assert_clean()


def test_without_any_chromium_the_script_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert chromium_path(str(tmp_path / "none")) is None
    assert "tests/install_chromium.sh" in MISSING
