"""Rollouts as micro-batches: cut by a token budget, shared out over the processes, and back to rows.

Completions are never tokenised again: their ids are those that were drawn. What is computed on a micro-batch is in
scoring.py and in training/.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dgpo_cli.core.packing import packed_rows
from dgpo_cli.models.sequence_parallel import ALONE, Team
from dgpo_cli.processes import Processes
from dgpo_cli.types import Rollout


class Held(NamedTuple):
    """Counted tokens of a row, those from `start` on and before `stop`, that a process computes."""

    row: int  # of the batch
    start: int
    stop: int


@dataclass(frozen=True)
class MicroBatch:
    """Sequences, and the places at which their counted tokens are predicted: right-padded [b, L], or packed [1, S].

    A team's part of a packed one [1, S / size] has the same rows, and the counted tokens that are predicted in it.
    There is no attention mask. Padding stands behind what a causal model reads, so none is needed; and with one torch
    would leave its fused kernel for a slower one that keeps [b, L, L].
    """

    rows: list[int]  # of the batch
    input_ids: Tensor
    lengths: list[int]  # counted tokens of each row
    at: tuple[Tensor, Tensor]  # (row, position) of the hidden state that predicts each counted token, [n] each
    targets: Tensor  # [n]
    padding: int  # pad positions among b * L
    prompts: list[tuple[int, ...]]  # of each row
    packed: list[int] | None = None  # sizes of the sequences that lie one after another; None: a row for each
    part: list[Held] | None = None  # in place of each row's counted tokens, those of a team's part

    @property
    def held(self) -> list[Held]:
        """The counted tokens of each row that are its own."""
        if self.part is not None:
            return self.part
        return whole_rows(self.rows, self.lengths)

    @property
    def mask(self) -> Tensor:
        """[b, T] True on its own counted tokens."""
        if self.part is None:
            return mask_of(self.lengths)
        return mask_of_held(self.part, max(self.lengths))

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(self.packed) if self.packed else self.input_ids.shape[1]


def whole_rows(rows: list[int], lengths: list[int]) -> list[Held]:
    """All counted tokens of rows that have so many."""
    return [Held(row, 0, length) for row, length in zip(rows, lengths, strict=True)]


def mask_of(lengths: list[int], width: int | None = None) -> Tensor:
    """[b, T] True on the first lengths[i] tokens of row i."""
    columns = max(lengths, default=0) if width is None else width
    return torch.arange(columns)[None, :] < torch.tensor(lengths, dtype=torch.long)[:, None]


def mask_of_held(held: list[Held], width: int) -> Tensor:
    """[b, T] True on the tokens of row i that held[i] names."""
    columns = torch.arange(width)[None, :]
    starts, stops = torch.tensor([one.start for one in held]), torch.tensor([one.stop for one in held])
    return (columns >= starts[:, None]) & (columns < stops[:, None])


def make_microbatches(
    rollouts: list[Rollout],
    rows: list[int],
    lengths: list[int],
    *,
    tokens: int,
    pad_id: int,
    processes: int = 1,
    packed: bool = False,
    team: int = 1,
) -> list[MicroBatch]:
    """Cut `rows` into micro-batches of at most `tokens` positions for each process of a `team`, padding included.

    `lengths[i]` are the counted tokens of rollout i; rows without any are left out. A sequence longer than the budget
    is a micro-batch of its own. For several processes the cuts are finer, so that each has work if there is enough.
    Sorted by length and padded, or `packed`, for models whose attention knows of it.
    """
    size = {row: sequence_size(rollouts, lengths, row) for row in rows if lengths[row]}
    tokens, teams = tokens * team, processes // team
    if packed:
        together = packed_rows(size, tokens=tokens, at_once=teams)
        return [packed_microbatch(rollouts, batch, lengths) for batch in together]
    if teams > 1:
        tokens = min(tokens, -(-sum(size.values()) // teams))
    order = sorted(size, key=lambda row: (-size[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and _joins(size[row], size[batches[-1][0]], len(batches[-1]), tokens):
            batches[-1].append(row)
        else:
            batches.append([row])
    return [microbatch_of(rollouts, batch, lengths, pad_id) for batch in batches]


def _joins(size: int, longest: int, count: int, tokens: int) -> bool:
    """Whether a sequence goes into a micro-batch of `count`: it fits, and is not much shorter than the longest there.

    Below an eighth of the budget any that fits goes in: a pass of few tokens costs more than padding does.
    """
    return longest * (count + 1) <= tokens and (longest * count < tokens // 8 or size >= 0.9 * longest)


def dealt(batches: list[MicroBatch], processes: Processes, team: Team = ALONE) -> list[tuple[MicroBatch, bool]]:
    """This process's micro-batches, as many as any other's, and whether each is its own to count.

    They are dealt out in turn, longest first, so those of a round have about one size. In the last round a process may
    have none: it gets the first of that round, and does not count it, for in a pass of sharded weights all take part.
    A team gets them together, each process its part of them.
    """
    number, teams = processes.rank // team.size, processes.size // team.size
    rounds = [batches[start : start + teams] for start in range(0, len(batches), teams)]
    mine = [(row[number], True) if number < len(row) else (row[0], False) for row in rounds]
    return mine if team.size == 1 else [(part_of(batch, team), counts) for batch, counts in mine]


def shares(batches: list[MicroBatch], processes: int, team: int = 1) -> list[list[Held]]:
    """By rank, the tokens that `dealt` has each process count."""
    teams = processes // team
    by_rank: list[list[Held]] = []
    for rank in range(processes):
        number, place = divmod(rank, team)
        of_team = batches[number::teams]
        parts = [batch.held if team == 1 else _held(batch, *_cut(batch, team, place)) for batch in of_team]
        by_rank.append([held for part in parts for held in part if held.start < held.stop])
    return by_rank


def part_of(batch: MicroBatch, team: Team) -> MicroBatch:
    """The part of a packed micro-batch that a process of a team computes: equally many tokens for each.

    What is missing to that is filled up behind them, as a sequence that counts nothing.
    """
    assert batch.packed is not None
    start, stop = _cut(batch, team.size, team.place)
    end, behind = batch.input_ids.shape[1], team.size * (stop - start) - batch.input_ids.shape[1]
    ids = torch.nn.functional.pad(batch.input_ids, (0, behind))[:, start:stop]
    inside = (batch.at[1] >= start) & (batch.at[1] < stop)
    return replace(
        batch,
        input_ids=ids,
        at=(batch.at[0][inside], batch.at[1][inside] - start),
        targets=batch.targets[inside],
        padding=max(0, stop - max(start, end)),
        packed=[*batch.packed, behind] if behind else batch.packed,
        part=_held(batch, start, stop),
    )


def _cut(batch: MicroBatch, size: int, place: int) -> tuple[int, int]:
    """The positions [start, stop) of a team's process, beyond the end for the last ones if they do not split evenly."""
    each = -(-batch.input_ids.shape[1] // size)
    return place * each, (place + 1) * each


def _held(batch: MicroBatch, start: int, stop: int) -> list[Held]:
    """The counted tokens of each row that are predicted at the positions [start, stop) of a packed row."""
    assert batch.packed is not None
    found, end = [], 0
    for row, size, length in zip(batch.rows, batch.packed, batch.lengths, strict=True):
        end += size
        first = end - 1 - length  # where the row's first counted token is predicted
        found.append(Held(row, *(min(max(edge - first, 0), length) for edge in (start, stop))))
    return found


def microbatch_of(rollouts: list[Rollout], rows: list[int], lengths: list[int], pad_id: int) -> MicroBatch:
    """One micro-batch of these rows, `lengths[row]` counted tokens each."""
    sequences = [(*rollouts[row].request.prompt.token_ids, *rollouts[row].token_ids[: lengths[row]]) for row in rows]
    width = max(len(sequence) for sequence in sequences)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    at_rows: list[int] = []
    at_columns: list[int] = []
    targets: list[int] = []
    for place, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
        ids[place, : len(sequence)] = sequence
        first = len(sequence) - lengths[row] - 1  # the last prompt token predicts the first of the completion
        at_rows += [place] * lengths[row]
        at_columns += range(first, first + lengths[row])
        targets += rollouts[row].token_ids[: lengths[row]]
    input_ids = torch.from_numpy(ids)
    return MicroBatch(
        rows,
        input_ids,
        [lengths[row] for row in rows],
        (torch.tensor(at_rows), torch.tensor(at_columns)),
        torch.tensor(targets, dtype=torch.long),
        input_ids.numel() - sum(map(len, sequences)),
        [rollouts[row].request.prompt.token_ids for row in rows],
    )


def packed_microbatch(rollouts: list[Rollout], rows: list[int], lengths: list[int]) -> MicroBatch:
    """These rows one after another, `lengths[row]` counted tokens each."""
    ids: list[int] = []
    at: list[int] = []
    targets: list[int] = []
    for row in rows:
        prompt, counted = rollouts[row].request.prompt.token_ids, rollouts[row].token_ids[: lengths[row]]
        first = len(ids) + len(prompt) - 1
        at += range(first, first + lengths[row])
        ids += (*prompt, *counted)
        targets += counted
    return MicroBatch(
        rows,
        torch.tensor([ids]),
        [lengths[row] for row in rows],
        (torch.zeros(len(at), dtype=torch.long), torch.tensor(at)),
        torch.tensor(targets, dtype=torch.long),
        padding=0,
        prompts=[rollouts[row].request.prompt.token_ids for row in rows],
        packed=[sequence_size(rollouts, lengths, row) for row in rows],
    )


def scatter_rows(values: Tensor, batch: MicroBatch) -> Tensor:
    """Flat values [n] of a micro-batch to [b, T], 0 beyond each row's counted tokens; gradients pass."""
    mask = batch.mask.to(values.device)
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def sequence_size(rollouts: list[Rollout], lengths: list[int], row: int) -> int:
    """Tokens of a sequence, the prompt among them."""
    return len(rollouts[row].request.prompt.token_ids) + lengths[row]
