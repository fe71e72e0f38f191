"""Where the processes of a run meet: the store that their launcher gives them, and what they leave there to be read.

torchrun's store outlives an attempt, so nothing that is found in it under a fixed name is known to be of this one.
Rank 0 draws a name for each attempt and gives it to those that ask; what an attempt stores stands under its name.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import FileStore, PrefixStore, TCPStore

from dgpo_cli.environment import STORE, Place
from dgpo_cli.errors import ConfigError, RunError

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Board:
    """A line of each process that the others can read, over a connection of its own."""

    store: Any
    rank: int
    size: int
    keeper: str  # what has the store, for a message

    def post(self, text: str) -> None:
        self.store.set(f"line/{self.rank}", text)

    def read(self) -> dict[int, str]:
        """The lines of the others by rank."""
        ranks = [rank for rank in range(self.size) if rank != self.rank]
        keys = [f"line/{rank}" for rank in ranks]
        extended = self.store.has_extended_api()
        lines = self.store.multi_get(keys) if extended and keys else [self.store.get(key) for key in keys]
        return {rank: line.decode() for rank, line in zip(ranks, lines, strict=True)}


@dataclass(frozen=True)
class Meeting:
    """The processes of one attempt at a run, met."""

    here: Place
    store: Any
    board: Board


def meet(here: Place, seconds: float) -> Meeting:
    """Meet the other processes of the run.

    Raises:
        RunError: not all came within `seconds`; those that are missing are named.
        ConfigError: the launcher does not say where to meet.
    """
    shared, keeper = _store(here, seconds)
    deadline = time.monotonic() + seconds
    store: Any = PrefixStore(_name_of_attempt(shared, here, seconds, deadline), shared)
    store.set(f"line/{here.rank}", "")
    store.set(f"here/{here.rank}", socket.gethostname())
    missing = list(range(here.size))
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        _pause(here, seconds, deadline, missing)
    return Meeting(here, store, Board(store.clone(), here.rank, here.size, keeper))


def _store(here: Place, seconds: float) -> tuple[Any, str]:
    """The launcher's store, and who keeps it."""
    if STORE in os.environ:
        return FileStore(os.environ[STORE], here.size), f"the file {os.environ[STORE]}"
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not address or not port:
        raise ConfigError(
            f"this is process {here.rank} of {here.size}, and MASTER_ADDR and MASTER_PORT do not say where they meet",
            "torchrun sets them; with srun: export MASTER_PORT=29500 "
            "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)",
        )
    agent_owns_it = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = TCPStore(
            address,
            int(port),
            here.size,
            is_master=here.rank == 0 and not agent_owns_it,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"process {here.rank} of {here.size} on {socket.gethostname()} did not reach {address}:{port} within "
            f"{seconds:g} s",
            "check MASTER_ADDR, MASTER_PORT and that process 0 runs",
        ) from error
    return store, "the launcher" if agent_owns_it else "rank 0"


def _name_of_attempt(shared: Any, here: Place, seconds: float, deadline: float) -> str:
    """The name that rank 0 draws, in every process.

    The others ask under a word of their own, which no earlier attempt can have answered. Rank 0 goes on answering
    until all have come, for the first question that it finds may be that of a dead process.
    """
    if here.rank == 0:
        name = f"attempt_{secrets.token_hex(8)}"
        _answer_all(shared, PrefixStore(name, shared), name, here, seconds, deadline)
        return name
    word = secrets.token_hex(8)
    shared.set(f"ask/{here.rank}", word)
    while not shared.check([f"answer/{word}"]):
        _pause(here, seconds, deadline, [0])
    return str(shared.get(f"answer/{word}").decode())


def _answer_all(shared: Any, store: Any, name: str, here: Place, seconds: float, deadline: float) -> None:
    answered = set()
    missing = list(range(1, here.size))
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        for rank in missing:
            word = shared.get(f"ask/{rank}").decode() if shared.check([f"ask/{rank}"]) else None
            if word is not None and word not in answered:
                shared.set(f"answer/{word}", name)
                answered.add(word)
        _pause(here, seconds, deadline, missing)


def _pause(here: Place, seconds: float, deadline: float, missing: Sequence[int]) -> None:
    """A moment; at the deadline those that are missing are named."""
    if time.monotonic() > deadline:
        names = ", ".join(map(str, missing))
        raise RunError(
            f"rank {names} of {here.size} did not join within {seconds:g} s",
            "look at that process's own output; strategy.connect_seconds waits longer",
        )
    time.sleep(POLL_SECONDS)
