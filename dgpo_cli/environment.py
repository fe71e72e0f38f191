"""Which process of a run this is, as a launcher says it in the environment. No torch here: the command line asks too.

torchrun and accelerate launch set RANK, WORLD_SIZE and LOCAL_RANK, as `dgpo` does for its own workers; srun sets
SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_LOCALID.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

SWEEP = "DGPO_SWEEP"  # the process of the sweep whose job this process is
LOOK_SECONDS = 0.5  # between two looks whether it is still there
ORPHAN_SECONDS = 600.0  # that a job without its sweep has for saving
DRIVER = Path("/dev/nvidiactl")  # there with an NVIDIA driver
STORE = "DGPO_STORE"  # file in which the workers that dgpo started find each other


@dataclass(frozen=True)
class Place:
    """This process among those of its run."""

    rank: int
    size: int
    local_rank: int

    @property
    def own_worker(self) -> bool:
        """Whether dgpo itself started it: another process of this machine then watches it."""
        return STORE in os.environ


ALLOCATOR = "expandable_segments:True"
ALLOCATOR_KEYS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the second before torch 2.9, and still read


def prefer_growing_segments(variables: MutableMapping[str, str] = os.environ, *, driver: Path = DRIVER) -> None:
    """Let torch's allocator on a GPU grow what it holds. Micro-batches of ever other shapes leave gaps otherwise.

    Before torch is imported. A setting of the user's stays as it is; without an NVIDIA driver there is none to make.
    """
    if sys.platform != "linux" or not driver.exists() or any(key in variables for key in ALLOCATOR_KEYS):
        return
    from importlib.metadata import version

    major, minor = map(int, version("torch").split(".")[:2])
    variables[ALLOCATOR_KEYS[(major, minor) < (2, 9)]] = ALLOCATOR


def place() -> Place | None:
    """What the launcher says, or None for a process that stands alone."""
    for rank, size, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if rank in os.environ and size in os.environ and (int(os.environ[size]) > 1 or rank == "RANK"):
            return Place(int(os.environ[rank]), int(os.environ[size]), int(os.environ.get(local, 0)))
    return None


def is_follower() -> bool:
    """Whether another process of the run speaks for this one: it owns the folder, the terminal and the files."""
    here = place()
    return here is not None and here.rank > 0


def end_with_parent() -> None:
    """A worker that dgpo started does not outlive it, even where that is killed. Linux alone can do this."""
    if STORE in os.environ and sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def end_with_sweep() -> None:
    """A job does not outlive its sweep, even where that is killed: it is asked to save and end, and then made to.

    What the job starts is its own business, so the variable goes.
    """
    sweep = os.environ.pop(SWEEP, None)
    if sweep is not None:
        threading.Thread(target=_end_without, args=(int(sweep),), name="sweep's end", daemon=True).start()


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
