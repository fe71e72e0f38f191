"""A launcher that starts its processes again after a failure (torchrun --max-restarts): the run goes on by itself.

torchrun has a folder of its own on each node, the same for every attempt, in which it wants errors reported. What run
an attempt has begun is noted there: so neither a folder that is named by the time is lost, nor is `overwrite=true`
obeyed a second time.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from dgpo_cli.command_lines import quoted
from dgpo_cli.config.overrides import parse
from dgpo_cli.environment import is_follower, place
from dgpo_cli.files import write_atomically
from dgpo_cli.terminal import say

NOTE = "dgpo_run.json"
ATTEMPT = "attempt_"  # torchrun: ROOT/attempt_0/LOCAL_RANK/error.json


def begin(folder: Path) -> None:
    """Note that this attempt has begun the run in `folder`: one process a node does, before the run is written."""
    file, here = _note_file(), place()
    if file is not None and here is not None and here.local_rank == 0:
        write_atomically(file, json.dumps({"folder": str(folder.absolute()), "command": sys.argv[1:]}))


def continued(command: str, overrides: list[str], argv: list[str]) -> list[str]:
    """The overrides in `argv`, which was typed; if an earlier attempt has begun a run, those that go on with it."""
    if command != "train" or is_follower() or any(text.startswith("resume=") for text in overrides):
        return overrides
    typed = ["train", *argv]
    note = _note(_note_file()) or _by_name(overrides, typed)
    if note is None or not (Path(note["folder"]) / "config.yaml").is_file():
        return overrides
    say(f"note: started again by the launcher: the run in {note['folder']} goes on")
    mine = [text for text in overrides if not text.startswith("hydra.run.dir=")]
    if note["command"] == typed:  # the run's own configuration has it all
        mine = [text for text in mine if text.startswith("hydra.")]
    return [*mine, f"resume={quoted(note['folder'])}"]


def _note_file() -> Path | None:
    """Where the note stands, if this launcher has such a folder."""
    error_file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    return next((up.parent / NOTE for up in error_file.parents if up.name.startswith(ATTEMPT)), None)


def _note(file: Path | None) -> dict[str, Any] | None:
    try:
        note = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"folder", "command"} <= note.keys() else None


def _by_name(overrides: list[str], typed: list[str]) -> dict[str, Any] | None:
    """For launchers that count restarts and keep no folder: the run that the same command made before."""
    names = [text for text in overrides if text.startswith("hydra.run.dir=")]
    if _note_file() is not None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or not names:
        return None
    folder = Path(str(parse(names[-1]).value()))
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        command = shlex.split(run["command"])[1:]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"folder": str(folder), "command": command} if command == typed else None
