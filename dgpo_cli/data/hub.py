"""Rows of a data set on the Hugging Face hub, through the package `datasets`, which is imported here and nowhere else.

The tests run without the hub: they use the real package and replace the download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from dgpo_cli.data.rows import Row
from dgpo_cli.errors import DataError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubRows:
    """The rows of a split, and the commit that they came from if the package says it."""

    rows: list[Row]
    revision: str | None


def read_hub_rows(hub_id: str, *, config: str | None, split: str, revision: str | None, path_key: str) -> HubRows:
    """The rows of one split. `config` may join several configurations with `+`, read one after the other.

    If the hub does not answer, the package's cache is read. Raises DataError in one line: which extra to install, or
    which key takes a local file (`path_key`, as data.path).
    """
    local = f"give a local file with {path_key}=FILE"
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{hub_id}: reading a data set from the hub needs the package datasets",
            f"pip install 'dgpo[hub]', or {local}",
        ) from error
    datasets.disable_progress_bars()
    rows: list[Row] = []
    try:
        commit = _commit(hub_id, revision)
        with nullcontext() if commit else _offline():
            for name in config.split("+") if config else [None]:
                table = datasets.load_dataset(hub_id, name, split=split, revision=commit or revision)
                rows.extend(Row(f"row {number}", dict(fields)) for number, fields in enumerate(table, len(rows) + 1))
                commit = commit or _downloaded_commit(table)
    except Exception as error:  # the package lets through errors of every library below it; all mean: no rows
        raise DataError(f"{hub_id} ({_what(config, split)}): {_reason(error)}", local) from error
    if not rows:
        raise DataError(f"{hub_id} ({_what(config, split)}): holds no rows", local)
    return HubRows(rows, commit or revision)


def _commit(hub_id: str, revision: str | None) -> str | None:
    """The commit that the hub resolves the revision to; None if it does not answer.

    It asks once: the package itself would retry for half a minute. Raises the hub's own refusal (no such data set).
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return HfApi().dataset_info(hub_id, revision=revision, timeout=10).sha
    except HfHubHTTPError:
        raise
    except Exception:  # connection errors of whichever HTTP library the package uses
        return None


@contextmanager
def _offline() -> Iterator[None]:
    """The cache alone: no request, hence no retries."""
    import datasets
    import huggingface_hub.constants

    switches: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    for switch in switches:
        switch.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


def _what(config: str | None, split: str) -> str:
    return f"config {config}, split {split}" if config else f"split {split}"


def _reason(error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, ConnectionError | OSError) or "Hub" in type(error).__name__:
        return f"cannot be loaded from the hub ({type(error).__name__}: {first_line[:200]})"
    return f"cannot be loaded ({type(error).__name__}: {first_line[:200]})"


def _downloaded_commit(table: Any) -> str | None:
    """The commit in the addresses that were downloaded: hf://datasets/owner/name@COMMIT/file."""
    for address in getattr(table.info, "download_checksums", None) or {}:
        match = re.search(r"@([0-9a-f]{40})(?:/|$)", str(address))
        if match:
            return match.group(1)
    return None
