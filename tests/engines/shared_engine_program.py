"""One process of several that draw together, started by test_shared_engine.py. Argument: a model's folder.

Rank 0 prints one JSON object: what they drew beside what it draws alone, and where a signal to the last one ended them.
"""

from __future__ import annotations

import json
import sys

import torch

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.crew import Crew
from dgpo_cli.engines import completed, make_engine
from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.policy import Policy
from dgpo_cli.processes import Processes, join, leave
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling

SETTINGS = EngineConfig(batch_size=2)
SAMPLING = Sampling(1.0, 1.0, 8)
REQUESTS = [
    SampleRequest(Prompt(Problem(i, str(i), (), ""), "", tuple(range(5, 8 + i % 3))), 0, derive_seed("test", i))
    for i in range(5)
]  # units of 2, 2 and 1: in the second round the last of two processes has none


class Stopped(Exception):
    pass


def stopped_after(policy: Policy, processes: Processes, tokens: int) -> int:
    """How many tokens this process was asked about, if the last one has a signal from number `tokens` on."""
    asked = 0

    def signal_number() -> int:
        nonlocal asked
        asked += 1
        return 10 if asked >= tokens and processes.rank == processes.size - 1 else 0

    def stop_agreed(number: int) -> None:
        if number:
            raise Stopped

    crew = Crew(processes, signal_number=signal_number, stop_agreed=stop_agreed)
    engine = make_engine(SETTINGS, policy=policy, crew=crew)
    try:
        crew.on_main(lambda: engine.generate(REQUESTS, SAMPLING))
    except Stopped:
        return asked
    return 0


def main() -> None:
    torch.set_num_threads(1)
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    policy = Policy(load_model(sys.argv[1]), frozenset())
    alone = make_engine(SETTINGS, policy=policy)
    alone.load(3)
    crew = Crew(processes)
    engine = make_engine(SETTINGS, policy=policy, crew=crew)
    engine.load(3)
    together = crew.on_main(lambda: [completed(engine.generate(REQUESTS, SAMPLING)) for _ in range(2)])
    expected = completed(alone.generate(REQUESTS, SAMPLING))
    record = {
        "same": processes.gathered(together == [expected, expected]),
        "policy_steps": [rollout.policy_step for rollout in together[0]],
        "units_at_once": engine.facts.units_at_once,
        "stopped": processes.gathered(stopped_after(policy, processes, 5)),
    }
    if processes.main:
        print(json.dumps(record))
    leave()


if __name__ == "__main__":
    main()
