"""One process of several that draw together, started by test_shared_engine.py.

Arguments: a model's folder; how the weights are held: whole | sharded | gathered (sharded, and whole while sampling).
Rank 0 prints one JSON object: what they drew beside what it draws alone, and how a signal to one of them ended them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

import torch

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.crew import Crew
from dgpo_cli.engines import completed, make_engine
from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.placement import prepare_device
from dgpo_cli.models.policy import Policy, load_trainee
from dgpo_cli.processes import Processes, join, leave
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling

SETTINGS = EngineConfig(batch_size=2)
SAMPLING = Sampling(1.0, 1.0, 30)
STOPS = frozenset(range(0, 512, 8))  # of 512 ids: completions end early, and processes after other numbers of passes
REQUESTS = [
    SampleRequest(Prompt(Problem(i, str(i), (), ""), "", tuple(range(5, 8 + i % 3))), 0, derive_seed("test", i))
    for i in range(5)
]  # units of 2, 2 and 1: one of two processes has one less


class Stopped(Exception):
    pass


def policy_of(folder: str, held: str, processes: Processes) -> Policy:
    if held == "whole":
        return Policy(load_model(folder), STOPS)
    model = ModelConfig(name="random", path=folder)
    strategy = StrategyConfig(name="fsdp", gather_for_generation=held == "gathered")
    return replace(load_trainee(model, prepare_device(strategy, model, processes), None, seed=0), stop_ids=STOPS)


def seconds_to_stop(policy: Policy, processes: Processes, signalled: int, passes: int) -> float | None:
    """How long this process drew on, after one had a signal before its pass number `passes`; None if to the end."""
    asked, since = 0, time.monotonic()

    def signal_number() -> int:
        nonlocal asked
        asked += 1
        return 10 if asked >= passes and processes.rank == signalled else 0

    def stop_agreed(number: int) -> None:
        if number:
            assert number == 10
            raise Stopped

    crew = Crew(processes, signal_number=signal_number, stop_agreed=stop_agreed)
    engine = make_engine(SETTINGS, policy=replace(policy, stop_ids=frozenset()), crew=crew)
    try:
        crew.on_main(lambda: engine.generate(REQUESTS[:1] * 2, Sampling(1.0, 1.0, 100_000)))  # one unit: rank 1 waits
    except Stopped:
        return time.monotonic() - since
    return None


def main() -> None:
    torch.set_num_threads(1)
    folder, held = sys.argv[1:]
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    policy = policy_of(folder, held, processes)
    alone = make_engine(SETTINGS, policy=policy_of(folder, "whole", processes))
    alone.load(3)
    crew = Crew(processes)
    engine = make_engine(SETTINGS, policy=policy, crew=crew)
    engine.load(3)
    together = crew.on_main(lambda: [completed(engine.generate(REQUESTS, SAMPLING)) for _ in range(2)])
    expected = completed(alone.generate(REQUESTS, SAMPLING))
    record = {
        "same": processes.gathered(together == [expected, expected]),
        "lengths": [len(rollout.token_ids) for rollout in expected],
        "policy_steps": [rollout.policy_step for rollout in together[0]],
        "units_at_once": engine.facts.units_at_once,
        "stopped": processes.gathered(seconds_to_stop(policy, processes, int(held == "whole"), 20)),
    }
    if processes.main:
        print(json.dumps(record))
    leave()


if __name__ == "__main__":
    main()
