"""One process of several that export a model under every strategy, started by test_export.py.

Arguments: a model's folder, an adapter's (or nothing). Rank 0 prints a line a strategy: the hash of what each process
got, the elements of the largest tensor that was handed out, and those of the largest weight.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.config.model_groups import LoraConfig, ModelConfig
from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.models.export import exported
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.processes import join, leave


def main(folder: str, adapter: str) -> None:
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    config = ModelConfig(path=folder, lora=LoraConfig(rank=3 if adapter else 0))
    for name in ("ddp", "fsdp", "fsdp_offload"):
        placement = Placement(StrategyConfig(name=name), "cpu", processes)
        model = load_trainee(config, placement, Path(adapter) if adapter else None, seed=0).model
        digest, largest = hashlib.sha256(), 0
        for own, weight in exported(model, torch.bfloat16):
            digest.update(own.encode() + weight.contiguous().view(torch.uint8).numpy().tobytes())
            largest = max(largest, weight.numel())
        one = max(weight.numel() for weight in model.model.parameters())
        hashes = processes.gathered(digest.hexdigest())
        if processes.main:
            print(json.dumps({"strategy": name, "hashes": hashes, "largest": largest, "one": one}), flush=True)
    leave()


main(*sys.argv[1:])
