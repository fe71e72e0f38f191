"""The manifest of a checkpoint: size and SHA-256 of every file, written last, and what it finds wrong later.

Who writes a file hashes it on the way, and who goes on from a checkpoint shares out what is read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dgpo_cli.files import Written, sha256, sync_folder, write_atomically, written
from dgpo_cli.progress import beat, measured

COUNTERS = Path("state", "counters.json")
READERS = 8  # files that a process reads again side by side


def write_manifest(folder: Path, known: Mapping[Path, Written]) -> None:
    """known: the files that were hashed and synced when they were written; the others are read again.

    All of them are on the disk before the manifest is.
    """
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found = known.get(path) or written(path)
            files[path.relative_to(folder).as_posix()] = {"bytes": found.bytes, "sha256": found.sha256}
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(path)
    write_atomically(folder / "manifest.json", json.dumps({"files": files}, indent=1))


def damage_of(folder: Path, share: tuple[int, int] = (0, 1)) -> str | None:
    """What is wrong with a checkpoint, or None. A manifest that can't be ours is damage too.

    share: (rank, size) of a process that reads only every size-th file.
    """
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return "no readable manifest.json"
    if COUNTERS.as_posix() not in expected:
        return f"manifest.json does not name {COUNTERS}"
    rank, size = share
    mine = sorted(expected.items(), key=lambda item: (-item[1][0], item[0]))[rank::size]
    with measured(), ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as readers:
        found = None
        for damage in readers.map(lambda item: _damage_of_file(folder, item[0], *item[1]), mine):
            found = found or damage
            beat()
    return found


def _damage_of_file(folder: Path, name: str, size: int, digest: str) -> str | None:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return f"manifest.json names {name!r}, which is not in it"
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or of another size"
        with path.open("rb") as stream:
            if sha256(stream) != digest:
                return f"{name} has another SHA-256"
    except (OSError, ValueError) as error:  # a flipped bit made a name that no file can have, or the disk fails
        return f"{name!r} cannot be read: {error}"
    return None
