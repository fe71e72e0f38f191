"""One process of several that save a sharded model together, started by test_checkpoint.py.

Arguments: a model's folder, a folder for checkpoints. Rank 0 prints one JSON object for each way of saving.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from dgpo_cli.config.compose import compose
from dgpo_cli.environment import place
from dgpo_cli.errors import ConfigError
from dgpo_cli.meeting import meet
from dgpo_cli.models import saving
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.models.sharding import full, local
from dgpo_cli.processes import Processes, join, leave
from dgpo_cli.traffic import TRAFFIC
from dgpo_cli.training.checkpoint import Checkpoints, RunState
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.shared_folder import require_shared


def saved(path: str, folder: Path, processes: Processes, *, beside: bool) -> dict[str, object]:
    config = compose("train", [f"model.path={path}", "strategy.device=cpu", "strategy=fsdp"])
    placement = Placement(config.strategy, "cpu", processes)
    model = load_trainee(config.model, placement, None, seed=0).model
    optimizer = Optimizer(model.model, config.optim, processes)

    def update() -> None:
        model.hidden_states(torch.arange(12)[None] + processes.rank).sum().backward()
        optimizer.update(1e-2)

    update()
    checkpoints = Checkpoints(folder, keep=2, beside=beside, processes=processes)
    weights = {name: full(weight.detach()).clone() for name, weight in optimizer.named}
    moments = [local(optimizer.adam.state[weight]["exp_avg"]).clone() for weight in optimizer.parameters]
    TRAFFIC.taken()
    step = checkpoints.save(RunState(step=1), model, optimizer, None)
    traffic = TRAFFIC.taken()["checkpoint"]
    update()  # goes on while the files are written
    checkpoints.settle()

    fresh = Optimizer(
        load_trainee(config.model, placement, step / "model", seed=0).model.model, config.optim, processes
    )
    fresh.load(step / "state")
    same = [
        torch.equal(local(fresh.adam.state[weight]["exp_avg"]), moment)
        for weight, moment in zip(fresh.parameters, moments, strict=True)
    ]
    intact = checkpoints.newest_intact() == (step, [])
    written = sorted(entry.name for entry in (step / "model").glob("*.safetensors"))
    loaded = dict(load_model(str(step / "model")).model.named_parameters())
    whole = all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    processes.highest(0)
    if processes.main:  # a byte of the smallest file, which is not the main process's to read again
        file = step / "model" / "config.json"
        file.write_bytes(file.read_bytes()[:-2] + b" }")
    processes.highest(0)
    found, warnings = checkpoints.newest_intact()
    everywhere = processes.gathered((all(same), intact, found is None, warnings))
    return {"beside": beside, "files": written, "whole": whole, "everywhere": everywhere, "traffic": traffic}


def told_apart(folder: Path, processes: Processes) -> dict[str, object]:
    """What the processes are told of a folder that all see, and of one of its own that each sees."""
    said = []
    for of_run in (folder / "shared", folder / f"own_{processes.rank}"):
        try:
            require_shared(of_run, processes, seconds=0.5)
            said.append("")
        except ConfigError as error:
            said.append(str(error))
    return {"said": processes.gathered(said), "left": sorted(entry.name for entry in folder.glob("*"))}


def main() -> None:
    torch.set_num_threads(1)
    saving.LEAST_BYTES = 1 << 14  # so that a small model goes into several files
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    for beside in (False, True):
        record = saved(sys.argv[1], Path(sys.argv[2]) / str(beside), processes, beside=beside)
        if processes.main:
            print(json.dumps(record))
    record = told_apart(Path(sys.argv[2]) / "apart", processes)
    if processes.main:
        print(json.dumps(record))
    leave()


if __name__ == "__main__":
    main()
