"""How many GPUs a training run needs: the plan, asked for one process more until it fits."""

from __future__ import annotations

from dataclasses import replace

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.batches import Data
from dgpo_cli.planning.fitting import GPU_SIZES
from dgpo_cli.planning.layout import ASSUMED_PROCESSES, Machine
from dgpo_cli.planning.plan import plan_training

MOST_GPUS = 128  # with more a process holds next to nothing of the model: a run that does not fit here fits nowhere


def fewest_gpus(
    config: TrainConfig,
    model: Architecture,
    gpu_bytes: int,
    data: Data = Data(),  # noqa: B008
    reference: Architecture | None = None,
    benchmark: Data = Data(),  # noqa: B008
) -> int | None:
    """The smallest number of such GPUs that the run fits on; None if no number helps.

    Only sharding makes a process's part smaller: other strategies are asked about one GPU.
    """
    for count in range(1, MOST_GPUS + 1 if config.strategy.name in SHARDED else 2):
        machine = Machine(gpus=count, gpu_bytes=gpu_bytes)
        spread = replace(config, strategy=replace(config.strategy, num_processes=count))
        if all(plan_training(spread, model, machine, data, reference, benchmark).fits.values()):
            return count
    return None


def nodes_needed(config: TrainConfig, model: Architecture) -> tuple[int, str] | None:
    """Whole computers of eight GPUs that the run fits on, as (GPUs, their size); one GPU if nothing is sharded.

    The smaller GPUs if as few of them do; None if the run fits nowhere.
    """
    node = ASSUMED_PROCESSES if config.strategy.name in SHARDED else 1
    counts = {name: fewest_gpus(config, model, capacity) for name, capacity in GPU_SIZES.items()}
    whole = {name: -(-count // node) * node for name, count in counts.items() if count is not None}
    return min(((count, name) for name, count in whole.items()), key=lambda found: found[0], default=None)
