"""The warnings of a plan: contexts, batches and disks that are too small. And bytes as a reader wants them."""

from __future__ import annotations

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.batches import rollouts_an_update
from dgpo_cli.planning.layout import Layout, Machine
from dgpo_cli.planning.memory import Batch
from dgpo_cli.planning.pieces import heads_divide


def context_warnings(model: Architecture, prompt: int, completion: int, name: str) -> list[str]:
    limit = model.max_positions
    if limit is None or completion < limit:
        return []
    return [
        f"{name}={completion} leaves no room for a prompt: the model's context is {limit:,} tokens: "
        f"{name}={max(1, limit - prompt)}"
    ]


def batch_warnings(config: TrainConfig, layout: Layout, batch: Batch) -> list[str]:
    found = []
    budget, size = config.optim.tokens_per_microbatch, layout.sequence_parallel
    if batch.width > budget * size:
        of = f" of each of {size} processes" if size > 1 else ""
        found.append(
            f"a full-length rollout has {batch.width:,} tokens, more than optim.tokens_per_microbatch={budget}{of}: it "
            "is a micro-batch of its own"
        )
    rollouts = rollouts_an_update(config)
    if rollouts % layout.teams:
        of = f"{layout.teams} teams" if layout.sequence_parallel > 1 else f"{layout.processes} processes"
        found.append(
            f"{rollouts} rollouts an update do not split evenly over {of}: some wait at the end of each update"
        )
    return found


def team_warnings(models: list[Architecture], layout: Layout) -> list[str]:
    """Why the run will be refused. models: that go through shared sequences, the policy's and the reference's."""
    team = layout.sequence_parallel
    found = []
    if layout.processes % team:
        found.append(f"{layout.processes} processes do not make up teams of {team}")
    for heads, of_keys in dict.fromkeys((model.heads, model.kv_heads) for model in models):
        if not heads_divide(heads, of_keys, team):
            found.append(f"{heads} heads, {of_keys} of keys, cannot be shared out to {team} processes")
    return [f"strategy.sequence_parallel={team}: {why}, and the run will be refused" for why in found]


def wider_team(models: list[Architecture], layout: Layout) -> int | None:
    """The next number of these processes that could share a sequence of these models; None if there is none."""
    for size in range(layout.sequence_parallel + 1, layout.processes + 1):
        divides = layout.processes % size == 0
        if divides and all(heads_divide(model.heads, model.kv_heads, size) for model in models):
            return size
    return None


def disk_warnings(disk: dict[str, int], machine: Machine) -> list[str]:
    if machine.disk_free_bytes is None or disk["most"] <= machine.disk_free_bytes:
        return []
    return [
        f"checkpoints take up to {size(disk['most'])} and {size(machine.disk_free_bytes)} are free: a smaller "
        "checkpoint.keep, or hydra.run.dir on another disk"
    ]


def size(count: int) -> str:
    """Bytes for a reader: 12.3 GiB."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
