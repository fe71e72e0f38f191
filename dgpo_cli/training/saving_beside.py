"""A checkpoint that is written while training goes on: by a thread of each process, from copies that nobody changes.

The threads must not take part in collectives, which belong to the main threads. So each leaves what it has written in
the store of the run, and the main process's thread, which waits for that, writes the manifest and gives the checkpoint
its name. A process that is killed meanwhile leaves a folder without a name.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from dgpo_cli.disk import writing
from dgpo_cli.errors import DgpoError, RunError
from dgpo_cli.files import Written, remove_tree
from dgpo_cli.models.saving import Job
from dgpo_cli.processes import Processes
from dgpo_cli.progress import measured

POLL_SECONDS = 0.05
CLOSE_SECONDS = 30.0  # for a part that is being written when the run fails
_numbers = itertools.count()  # of checkpoints of this process; the same in all, for all save equally often


class SavingBeside:
    """One checkpoint under way; made by all processes together, which go on at once."""

    def __init__(
        self,
        jobs: Sequence[Job],
        finish: Callable[[Mapping[Path, Written]], None],
        target: Path,
        temporary: Path,
        needed: int,
        processes: Processes,
    ) -> None:
        """finish: what the main process does with the hashes of all files, which lie in `temporary` until it has made
        `target` of that. needed: bytes, for a message."""
        self._jobs, self._finish, self._needed = jobs, finish, needed
        self._target, self._temporary = target, temporary
        self._processes, self._key = processes, f"saved/{next(_numbers)}"
        self._error: BaseException | None = None
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def ended(self) -> None:
        """Wait for this process's part, in the main one for the whole.

        Raises:
            RunError: it failed, here or, in the main process, in any.
        """
        with measured():
            while self._thread.is_alive():
                self._thread.join(POLL_SECONDS)
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Wait a moment for it, and no longer for others."""
        self._given_up.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            with writing(self._target, self._needed):
                found: dict[Path, Written] = {}
                for job in self._jobs:
                    found |= job()
                self._jobs = ()  # and the memory that they hold
                if self._processes.main:
                    self._finish(found | self._of_others())
                else:
                    self._tell({"files": {str(path): asdict(one) for path, one in found.items()}})
        except BaseException as error:  # for the main thread to raise
            self._error = error
            if not self._processes.main:
                self._tell({"error": str(error) or type(error).__name__})
            elif isinstance(error, Exception):
                remove_tree(self._temporary, ignore_errors=True)

    def _tell(self, what: object) -> None:
        self._processes.store.set(f"{self._key}/{self._processes.rank}", json.dumps(what))

    def _of_others(self) -> dict[Path, Written]:
        """What the others have written, as soon as all have; in the main process."""
        found: dict[Path, Written] = {}
        for rank in range(1, self._processes.size):
            key = f"{self._key}/{rank}"
            while not self._processes.store.check([key]):
                if self._given_up.is_set():
                    raise RunError("the run ended before all processes had written their part of a checkpoint")
                time.sleep(POLL_SECONDS)
            told = json.loads(self._processes.store.get(key))
            if "error" in told:
                raise DgpoError(f"rank {rank}: {told['error']}")
            found |= {Path(path): Written(**one) for path, one in told["files"].items()}
        return found
