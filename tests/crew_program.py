"""One process of a crew, started by test_crew.py: rank 0 prints what the others did and what everybody got."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from functools import partial

import torch

from dgpo_cli.crew import Crew
from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.processes import Processes, join, leave
from dgpo_cli.traffic import SAMPLES, SIGNALS, TRAFFIC
from dgpo_cli.training.stopping import StopGuard, StopRequested


def was_stopped(processes: Processes, *, to: int) -> bool:
    """Whether this process has left what only a signal ends, in the main process."""
    guard = StopGuard(0.0, ["SIGUSR1"])
    guard.share(processes)
    crew = Crew(processes, signal_number=lambda: guard.received or 0, stop_agreed=guard.obey, at_once=guard.at_once)
    with guard.listening():
        if processes.rank == to:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        try:
            crew.on_main(lambda: time.sleep(1000))
        except StopRequested:
            return guard.received == signal.SIGUSR1
    return False


def main() -> None:
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    crew, done = Crew(processes), []

    def add(number: int) -> int:
        done.append(f"add {number}")
        return sum(processes.gathered(number + processes.rank))

    def name(text: str, *, loud: bool = False) -> list[str]:
        done.append(f"name {text}")
        return processes.gathered(f"{text.upper() if loud else text}{processes.rank}")

    add_up, names = crew.share(add), crew.share(name)

    def calls(start: int) -> list[object]:
        return [names("a", loud=True), add_up(start), add_up(start + 1)]

    results: list[object] = []
    for start in (10, 20):  # an action calls what it likes, or nothing
        results.append(crew.on_main(partial(calls, start)))
    results.append(crew.on_main(lambda: "nothing"))
    # Rank 0 has two rounds of work, rank 1 three.
    rounds = 0
    while crew.go_on(rounds < 2 + processes.rank):
        rounds += 1
    TRAFFIC.taken()
    processes.total(torch.zeros(100), SIGNALS)
    processes.from_main(b"x" * 1000, SAMPLES)
    traffic = TRAFFIC.taken()
    rank = processes.rank
    large = torch.full((3, 1 + rank), float(rank))
    none = torch.empty(3, rank)  # rank 0 has none
    sent = {
        "dealt": processes.dealt(["for 0", "for 1"] if rank == 0 else [], SAMPLES),
        "to_main": processes.to_main({"rank": rank}, SAMPLES),
        "rows_to_main": [part.tolist() for part in processes.rows_to_main(large, SIGNALS)],
        "none_to_main": [list(part.shape) for part in processes.rows_to_main(none, SIGNALS)],
        "rows_from_all": [part.tolist() for part in processes.rows_from_all(large, [1, 2], SIGNALS)],
    }
    everybody = processes.gathered((results, done, rounds, traffic, sent, TRAFFIC.taken()))
    # A signal to the main process while it works alone, then one to the other, which waits for it.
    stopped = [was_stopped(processes, to=rank) for rank in (0, 1)]
    told = [[*one, stop] for one, stop in zip(everybody, processes.gathered(stopped), strict=True)]
    if processes.main:
        print(json.dumps({"size": processes.size, "everybody": told}))
    leave()


if __name__ == "__main__":
    main()
