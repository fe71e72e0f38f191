"""Modules that are imported while the garbage collector rests."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgpo_cli.large_imports import imported


@pytest.fixture(autouse=True)
def _nothing_stays_frozen() -> Iterator[None]:
    gc.unfreeze()  # what tests before it in this process have imported
    yield
    gc.unfreeze()


def test_the_collector_rests_during_an_import_and_forgets_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large_library.py").write_text("import gc\nrested = not gc.isenabled()\nmade = [[], {}]\n")
    (tmp_path / "broken_library.py").write_text("import gc\nraise OSError(gc.isenabled())\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert gc.get_freeze_count() == 0
    try:
        module = imported("large_library")
        assert module.rested
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > 0
        kept: list[list[int]] = [[] for _ in range(100)]
        assert imported("large_library") is module
        assert gc.get_freeze_count() == frozen, f"the {len(kept)} lists are the collector's still"
        with pytest.raises(OSError, match="False"):
            imported("broken_library")
        assert gc.isenabled()
    finally:
        sys.modules.pop("large_library", None)


def test_a_collector_that_is_off_stays_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quiet_library.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    gc.disable()
    try:
        imported("quiet_library")
        assert not gc.isenabled()
    finally:
        gc.enable()
        sys.modules.pop("quiet_library", None)
