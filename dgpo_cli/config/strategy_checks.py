"""Problems of a strategy before any process is started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.groups import RatioLevel
from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.errors import Problem


def several_processes(config: Any) -> Iterator[Problem]:
    """For training: settings that do not go together."""
    strategy = config.strategy
    yield from _known(strategy.name)
    if strategy.name == "single" and (strategy.num_processes or 1) > 1:
        yield Problem(
            f"strategy=single computes in one process, strategy.num_processes={strategy.num_processes} asks for more",
            "strategy=ddp or strategy=fsdp",
        )
    if strategy.packing and strategy.compile:
        yield Problem(
            "strategy.packing and strategy.compile: each packed row has shapes of its own, and would be compiled anew",
            "strategy.packing=false or strategy.compile=false",
        )
    if strategy.sequence_parallel > 1:
        yield from _shared_sequences(config)
    if strategy.reference_offload and strategy.name not in SHARDED:
        yield Problem(
            f"strategy.reference_offload: strategy={strategy.name} keeps whole models where they compute",
            "strategy=fsdp, with strategy.num_processes=1 on one GPU",
        )
    if strategy.name in SHARDED and config.model.lora.rank and config.reference.refresh_every:
        yield Problem(
            f"reference.refresh_every with model.lora.rank puts a second adapter into the model, which "
            f"strategy={strategy.name} cannot shard",
            "strategy=ddp or strategy=single, or reference.refresh_every=0",
        )


def _shared_sequences(config: Any) -> Iterator[Problem]:
    strategy, size = config.strategy, config.strategy.sequence_parallel
    leave_out = "strategy.sequence_parallel=1"
    if strategy.name == "single":
        yield Problem(
            f"strategy=single computes in one process, strategy.sequence_parallel={size} needs {size}",
            f"strategy=ddp or strategy=fsdp, with strategy.num_processes={size}",
        )
    elif strategy.num_processes and strategy.num_processes % size:
        yield Problem(
            f"strategy.sequence_parallel={size}: strategy.num_processes={strategy.num_processes} do not make up teams "
            f"of {size}",
            f"strategy.num_processes={-(-strategy.num_processes // size) * size}",
        )
    if strategy.packing is False:
        yield Problem(
            f"strategy.sequence_parallel={size} cuts packed rows, and strategy.packing=false makes none",
            "leave out strategy.packing",
        )
    if strategy.compile:
        yield Problem(
            f"strategy.sequence_parallel={size} and strategy.compile: parts have shapes of their own, and would be "
            "compiled anew",
            f"strategy.compile=false, or {leave_out}",
        )
    if config.algo.ratio_level is RatioLevel.sequence:
        yield Problem(
            f"algo.ratio_level=sequence needs the whole sequence in a process, strategy.sequence_parallel={size} cuts "
            "it",
            f"algo.ratio_level=token, or {leave_out}",
        )


def one_process(config: Any) -> Iterator[Problem]:
    """For evaluation and rollouts, which compute in one process; a plan may ask about any."""
    yield from _known(config.strategy.name)
    if config.strategy.name != "single" and not config.dry_run:
        yield Problem(
            f"strategy={config.strategy.name} is for dgpo train; this command computes in one process",
            "leave it out; a larger model: engine=openai with a server that shards it (dgpo eval)",
        )


def _known(name: str) -> Iterator[Problem]:
    known = catalogue.options("strategy")
    if name not in known:
        close = catalogue.nearest(name, known)
        hint = f"did you mean strategy={close}?" if close else " | ".join(known)
        yield Problem(f"strategy.name: there is no strategy '{name}'", hint)
