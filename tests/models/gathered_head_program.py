"""One process of several that gather a head from their shards, started by test_gathered_head.py.

Arguments: a model's folder, that of one with code of its own, a folder in which each rank keeps such code apart. Rank 0
prints a JSON object for each strategy and dtype.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["HF_MODULES_CACHE"] = f"{sys.argv[3]}/{os.environ['RANK']}"  # as on another machine; before it is read

import torch

from dgpo_cli.config.compose import compose
from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.models.sharding import full
from dgpo_cli.processes import Processes, join, leave
from dgpo_cli.traffic import TRAFFIC


def tried(path: str, strategy: str, dtype: str, processes: Processes) -> dict[str, object]:
    settings = [f"model.path={path}", "strategy.device=cpu", f"strategy={strategy}", f"strategy.compute_dtype={dtype}"]
    config = compose("train", settings)
    model = load_trainee(config.model, Placement(config.strategy, "cpu", processes), None, seed=0).model
    whole = load_model(path).head().weight.detach().to(getattr(torch, dtype))

    TRAFFIC.taken()
    head = model.head().weight
    same, once = torch.equal(head, whole), TRAFFIC.taken()["heads"]

    slopes = [torch.rand(whole.shape, generator=torch.Generator().manual_seed(rank)).to(whole) for rank in range(2)]
    (head * slopes[processes.rank]).sum().backward()
    summed = slopes[0].float() + slopes[1].float()
    gradients = TRAFFIC.taken()["gradients"]
    found = full(model.model.get_output_embeddings().weight.grad)

    with model.keeping_head(), torch.no_grad():
        again = [torch.equal(model.head().weight, whole) for _ in range(3)]
    kept = TRAFFIC.taken()["heads"]
    with torch.no_grad():
        local = model.model.get_output_embeddings().weight.to_local()
        local.add_(1.0)
    fresh = torch.equal(model.head().weight, (load_model(path).head().weight.detach() + 1.0).to(whole))
    return {
        "strategy": strategy,
        "dtype": dtype,
        "same": same and all(again),
        "gradient": torch.equal(found, summed),
        "bytes": [once, gradients, kept],
        "fresh": fresh,
    }


def with_own_code(path: str, processes: Processes) -> dict[str, object]:
    """A model of a class that came with it, which rank 0 alone has loaded."""
    settings = [f"model.path={path}", "strategy.device=cpu", "strategy=fsdp", "model.trust_remote_code=true"]
    config = compose("train", settings)
    model = load_trainee(config.model, Placement(config.strategy, "cpu", processes), None, seed=0).model
    found = (type(model.model).__name__, model.model.twice(21), tuple(model.head().weight.shape))
    return {"own_code": processes.gathered(found)}


def main() -> None:
    torch.set_num_threads(1)
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    for strategy in ("fsdp", "fsdp_offload"):
        for dtype in ("float32", "bfloat16"):
            record = tried(sys.argv[1], strategy, dtype, processes)
            if processes.main:
                print(json.dumps(record))
    record = with_own_code(sys.argv[2], processes)
    if processes.main:
        print(json.dumps(record))
    leave()


if __name__ == "__main__":
    main()
