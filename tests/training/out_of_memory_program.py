"""Steps of real updates under a limit on memory, started by test_out_of_memory.py in a process of its own.

Arguments: a model's folder, then gatings. Of several processes only the last is under the limit. Prints one JSON object
a gating: what was said, the budget that it ended with, and whether the weights are those of a step that began with it.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import hashlib
import json
import resource
import sys
from dataclasses import replace
from typing import Any

import psutil
import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.processes import SOLO, Processes, join, leave
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.step import StepBatch
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

# Bytes that a step may take beyond what is held before it, tried until one is too few.
ROOMS = [32 << 20, 16 << 20, 8 << 20, 4 << 20, 2 << 20, 1 << 20]
# So long that a pass takes far more than the moments, which come after it: those no smaller budget would make room for.
GROUPS, GROUP, LENGTH = 4, 4, 240


def batch() -> StepBatch:
    generator = torch.Generator().manual_seed(5)
    rollouts = []
    for row in range(GROUPS * GROUP):
        ids = torch.randint(2, 400, (8 + LENGTH,), generator=generator).tolist()
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", tuple(ids[:8]))
        rollouts.append(Rollout(SampleRequest(prompt, row, 0), tuple(ids[8:]), "", "stop"))
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5] * GROUPS)
    return StepBatch(rollouts, [LENGTH] * len(rollouts), advantages, GROUP, list(range(len(rollouts))))


def step(
    model: LanguageModel, reference: LanguageModel, gating: str, processes: Processes, budget: int, room: int = 0
) -> dict[str, Any]:
    """One step on a copy of the model, with `room` bytes to take (0: no limit)."""
    config = compose("train", ["algo=dgpo", f"gating={gating}"])
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=LENGTH)
    settings = replace(OptimConfig(), tokens_per_microbatch=budget)
    policy = LanguageModel(copy.deepcopy(model.model), model.tokenizer, model.path, model.has_head)
    optimizer = Optimizer(policy.model, settings, processes)
    said: list[str] = []
    updater = Updater(
        policy, reference, algorithm, optimizer, settings, temperature=1.0, say=said.append, processes=processes
    )
    before = resource.getrlimit(resource.RLIMIT_AS)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free within the heap would come on top of the room
    if room and processes.rank == processes.size - 1:
        limit = int(psutil.Process().memory_info().vms) + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    signals = StopGuard(0.0)
    signals.share(processes)  # who lacks memory goes on answering the others
    try:
        updater.run(batch(), lr=1e-3, noise_floor=1e-9, guard=signals)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    weights = b"".join(value.numpy().tobytes() for value in policy.model.state_dict().values())
    return {"said": said, "budget": updater.budget.tokens, "weights": hashlib.sha256(weights).hexdigest()}


def main() -> None:
    torch.set_num_threads(1)
    here = place()
    assert here is not None
    processes = join(meet(here, 60), device="cpu", connect_seconds=60) if here.size > 1 else SOLO
    model = load_model(sys.argv[1])
    reference = frozen_copy(model)
    with torch.no_grad():
        for number, weight in enumerate(reference.model.parameters()):
            weight.mul_(1.0 + 0.1 * (number % 3))
    for gating in sys.argv[2:]:
        step(model, reference, gating, processes, 1)  # whatever the libraries allocate once is there after it
        for room in ROOMS:
            limited = step(model, reference, gating, processes, 4096, room)
            if limited["said"]:
                break
        same = step(model, reference, gating, processes, limited["budget"])
        if processes.main:
            print(json.dumps(limited | {"same": limited["weights"] == same["weights"]}), flush=True)
    leave()


main()
