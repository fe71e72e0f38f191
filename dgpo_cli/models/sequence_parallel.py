"""Sequences that are too long for one process: a team of processes holds a part of the tokens of each.

All but attention looks at a token alone. For attention the team exchanges tokens for heads (DeepSpeed-Ulysses, arXiv
2309.14509): each process gets all tokens of its share of the heads, and gives the outputs back as it got them. So each
head's numbers are those of one process, and its work is as much in every process, however causal masks cut it.
Micro-batches are cut into parts in microbatch.py; packed_attention.py exchanges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpo_cli.core.output_head import is_low
from dgpo_cli.errors import ConfigError
from dgpo_cli.planning.pieces import heads_divide
from dgpo_cli.processes import COLLECTIVE_PATIENCE, Processes
from dgpo_cli.progress import together
from dgpo_cli.traffic import SEQUENCES, TRAFFIC


@dataclass(frozen=True)
class Team:
    """Processes of adjacent ranks that share each sequence, seen from one of them."""

    place: int
    size: int
    group: Any = None  # torch's, of these processes alone

    def to_heads(self, tokens: Tensor) -> Tensor:
        """Its tokens [1, H, s, d] of all heads to all tokens [1, H / size, size * s, d] of its heads.

        Of fewer heads of keys than processes, several get the same one.
        """
        if tokens.shape[1] < self.size:
            tokens = tokens.repeat_interleave(self.size // tokens.shape[1], dim=1)
        sent = tokens.unflatten(1, (self.size, -1)).transpose(0, 1)  # [size, 1, H / size, s, d]
        got: Tensor = _Exchange.apply(sent, self)  # by the place that a part of the sequence comes from
        return got.permute(1, 2, 0, 3, 4).flatten(2, 3)

    def to_tokens(self, heads: Tensor) -> Tensor:
        """All tokens [1, size * s, H / size, d] of its heads to its tokens [1, s, H, d] of all heads."""
        sent = heads.unflatten(1, (self.size, -1)).transpose(0, 1)  # [size, 1, s, H / size, d]
        got: Tensor = _Exchange.apply(sent, self)  # by the place that the heads come from
        return got.permute(1, 2, 0, 3, 4).flatten(2, 3)

    def total(self, values: Tensor, kind: str) -> Tensor:
        """The sum over the team of a tensor on the CPU, in place. kind: of traffic.py."""
        with together():
            dist.all_reduce(values, group=self.group)
        self._count(kind, 2 * values.nbytes)
        return values

    def exchanged(self, parts: Tensor) -> Tensor:
        """parts[i] of this process to the one in place i, which puts it in this one's place."""
        sent = parts.contiguous()
        got = torch.empty_like(sent)
        into, out = (tensor.view(torch.uint8) if is_low(tensor.dtype) else tensor for tensor in (got, sent))
        with together():
            dist.all_to_all_single(into, out, group=self.group)
        self._count(SEQUENCES, sent.nbytes)
        return got

    def _count(self, kind: str, arrived: int) -> None:
        """Bytes, of which a team's process gets (size - 1) / size: in all teams, as if the others had as much."""
        TRAFFIC.count(kind, arrived * (self.size - 1) * dist.get_world_size() // self.size)


ALONE = Team(place=0, size=1)


def require_teams(processes: int, size: int) -> None:
    """Check a number of processes before any of them reads a model.

    Raises:
        ConfigError: they do not make up whole teams.
    """
    if processes % size:
        raise ConfigError(
            f"strategy.sequence_parallel={size}: {processes} processes do not make up teams of {size}",
            "a number of processes that it divides",
        )


def team_of(processes: Processes, size: int) -> Team:
    """The team of this process. Every process of the run has to ask, for all teams are made together.

    Raises:
        ConfigError: as `require_teams` does.
    """
    require_teams(processes.size, size)
    if size == 1:
        return ALONE
    firsts = range(0, processes.size, size)
    with together():
        groups = [dist.new_group(list(range(first, first + size)), COLLECTIVE_PATIENCE) for first in firsts]
    number, place = divmod(processes.rank, size)
    return Team(place, size, groups[number])


def no_team(model: Any, size: int) -> str | None:
    """Why teams of this size cannot share the sequences of a model of transformers; None if they can."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    of_keys = getattr(config, "num_key_value_heads", None) or heads
    if heads_divide(heads, of_keys, size):
        return None
    return f"{type(model).__name__} has {heads} heads, {of_keys} of keys, which {size} processes cannot share out"


class _Exchange(torch.autograd.Function):
    """`Team.exchanged`. Its own backward: what came from place i goes back to it."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, team: Team) -> Tensor:
        ctx.team = team
        return team.exchanged(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.team.exchanged(gradient), None
