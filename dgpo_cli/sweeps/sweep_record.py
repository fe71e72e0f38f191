"""sweep.json: what a sweep was asked for, and how far each of its jobs is.

It is written anew whenever a job begins or ends, so that a killed sweep knows what it was about. What a job computes
stands in job.yaml of its folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dgpo_cli.config.sweep_groups import SWEEP_FILE
from dgpo_cli.disk import writing
from dgpo_cli.errors import DataError
from dgpo_cli.files import to_json, write_atomically
from dgpo_cli.training.lock import Holder

VERSION = 1
ONE_JOB = 4096  # bytes, at most
WAITING, RUNNING, DONE, FAILED, INTERRUPTED = "waiting", "running", "done", "failed", "interrupted"
PRUNED = "pruned"  # ended by a search that expects nothing of it


@dataclass
class Job:
    """One job: `overrides` tell it from the others, and stay its own when the sweep is continued."""

    number: int
    folder: str  # below the sweep's
    overrides: list[str]
    begun: bool = False  # what lies in its folder is its own
    status: str = WAITING
    exit_code: int | None = None
    attempts: int = 0  # of the sweep's last start
    accuracy: float | None = None  # or the mean reward, of the last evaluation
    seconds: float = 0.0  # over all attempts
    process: Holder | None = None  # that of its last attempt

    @property
    def ended(self) -> bool:
        return self.status in (DONE, FAILED, INTERRUPTED, PRUNED)


@dataclass
class PairAtLook:
    """Side b against side a. verdict: of b, once a look has decided it."""

    a: str
    b: str
    difference: float
    p_value: float
    level: float  # that p is held against
    runs: int  # a side
    verdict: str | None = None


@dataclass
class Look:
    """A look at all comparisons of a sweep that stops when they are decided."""

    runs: int  # seeds a side
    pairs: list[PairAtLook]

    @property
    def decided(self) -> bool:
        return all(pair.verdict is not None for pair in self.pairs)


@dataclass
class SweepRecord:
    """A sweep. `overrides` are those of its files and of the command line, `base` a whole configuration beneath."""

    command: str
    overrides: list[str]
    base: str | None = None
    config_dirs: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    max_seeds: int | None = None  # that the looks were planned for

    def save(self, folder: Path) -> None:
        """Raises RunError where the disk is full."""
        with writing(folder / SWEEP_FILE, ONE_JOB * (1 + len(self.jobs))):
            write_atomically(folder / SWEEP_FILE, to_json({"version": VERSION, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> SweepRecord:
        """That of a sweep's folder.

        Raises:
            DataError: it is there and cannot be read, or a later version wrote it.
        """
        try:
            stored: dict[str, Any] = json.loads((folder / SWEEP_FILE).read_text(encoding="utf-8"))
            version = stored.pop("version")
            if version != VERSION:
                raise ValueError(f"version {version}, and this dgpo reads {VERSION}")
            jobs = [Job(**{**job, "process": job["process"] and Holder(**job["process"])}) for job in stored["jobs"]]
            looks = [Look(look["runs"], [PairAtLook(**pair) for pair in look["pairs"]]) for look in stored["looks"]]
            return cls(**{**stored, "jobs": jobs, "looks": looks})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder / SWEEP_FILE}: not the record of a sweep: {error}", "start the sweep again"
            ) from error

    def job_of(self, overrides: list[str]) -> Job | None:
        """The job with these overrides, in whatever order they were typed."""
        return next((job for job in self.jobs if sorted(job.overrides) == sorted(overrides)), None)
