"""What may add jobs to a sweep while it runs: seeds until a comparison is decided, or a search."""

from __future__ import annotations

from typing import Protocol

from dgpo_cli.sweeps.sweep_record import Job


class Source(Protocol):
    """Where further jobs come from."""

    def propose(self, places: int, running: int) -> bool:
        """Add jobs for so many free places, while others run; whether there are new ones. Nothing is waiting then."""

    def is_hopeless(self, job: Job) -> bool:
        """Whether a running job should be ended."""

    def ended(self, job: Job) -> None:
        """A job has ended for good."""
