"""The word `latest` for a run's folder: the newest run below outputs/, where runs go by default."""

from __future__ import annotations

import re
from pathlib import Path

from dgpo_cli.config.sweep_groups import SWEEP_FILE
from dgpo_cli.errors import UsageError

LATEST = "latest"
RUN_KEYS = ("resume", "model.path", "reference.path", "swap.path", "runs")
TRAINED, SWEPT = "outputs/train", "outputs/sweep"


def with_latest(overrides: list[str], *, multirun: bool = False) -> tuple[list[str], list[str]]:
    """The overrides with folders in place of `latest`, and a note for each. With `multirun`, resume= is of a sweep.

    Raises:
        UsageError: there is no run yet.
    """
    found, notes = [], []
    for text in overrides:
        key, _, value = text.partition("=")
        if key not in RUN_KEYS or not re.search(rf"(^|[\[,]){LATEST}($|[\],])", value) or Path(LATEST).exists():
            found.append(text)
            continue
        folder = str(_newest("sweep" if multirun and key == "resume" else key))
        notes.append(f"{key}: {LATEST} is {folder}")
        found.append(f"{key}=" + re.sub(rf"(?<![^\[,]){LATEST}(?![^\],])", lambda _, to=folder: to, value))  # type: ignore[misc]
    return found, notes


def _newest(key: str) -> Path:
    trained, swept = Path(TRAINED), Path(SWEPT)
    runs = [file.parent for file in trained.glob("*/config.yaml")]
    jobs = [file.parent for file in swept.glob("*/*/config.yaml")]
    if key == "sweep":
        return _last([file.parent for file in swept.glob(f"*/{SWEEP_FILE}")], "resume")
    if key == "runs":
        return _last([*runs, *(job.parent for job in jobs)], key)
    if key in ("model.path", "reference.path", "swap.path"):
        runs, jobs = ([run for run in of if (run / "checkpoints" / LATEST).is_file()] for of in (runs, jobs))
    return _last([*runs, *jobs], key)


def _newest_file(folder: Path) -> float:
    own = (folder / name for name in ("config.yaml", SWEEP_FILE))
    files = [file for file in (*own, *folder.glob("*/config.yaml")) if file.is_file()]
    return max(file.stat().st_mtime for file in files)


def _last(folders: list[Path], key: str) -> Path:
    if not folders:
        what = "no run with a checkpoint" if key.endswith(".path") else "no run"
        raise UsageError(f"{key}={LATEST}: {what} in {TRAINED} or {SWEPT} below this folder", f"{key}=FOLDER")
    return max(folders, key=_newest_file)
