"""Rollouts as micro-batches: cut by a token budget, shared out over the processes, and back to rows.

Completions are never tokenised again: their ids are those that were drawn. What is computed on a micro-batch is in
scoring.py and in training/.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.processes import Processes
from dgpo_cli.types import Rollout


@dataclass(frozen=True)
class MicroBatch:
    """Sequences, and the places at which their counted tokens are predicted: right-padded [b, L], or packed [1, S].

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

    @property
    def mask(self) -> Tensor:
        """[b, T] True on each row's counted tokens."""
        return mask_of(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(self.packed) if self.packed else self.input_ids.shape[1]


def mask_of(lengths: list[int], width: int | None = None) -> Tensor:
    """[b, T] True on the first lengths[i] tokens of row i."""
    columns = max(lengths, default=0) if width is None else width
    return torch.arange(columns)[None, :] < torch.tensor(lengths, dtype=torch.long)[:, None]


def make_microbatches(
    rollouts: list[Rollout],
    rows: list[int],
    lengths: list[int],
    *,
    tokens: int,
    pad_id: int,
    processes: int = 1,
    packed: bool = False,
) -> list[MicroBatch]:
    """Cut `rows` into micro-batches of at most `tokens` positions, padding included.

    `lengths[i]` are the counted tokens of rollout i; rows without any are left out. A sequence longer than the budget
    is a micro-batch of its own. For several processes the cuts are finer, so that each has work if there is enough.
    Sorted by length and padded, or `packed`, for models whose attention knows of it.
    """
    size = {row: sequence_size(rollouts, lengths, row) for row in rows if lengths[row]}
    if processes > 1:
        tokens = min(tokens, -(-sum(size.values()) // processes))
    order = sorted(size, key=lambda row: (-size[row], row))
    if packed:
        return [packed_microbatch(rollouts, batch, lengths) for batch in _filled(order, size, tokens)]
    batches: list[list[int]] = []
    for row in order:
        if batches and _joins(size[row], size[batches[-1][0]], len(batches[-1]), tokens):
            batches[-1].append(row)
        else:
            batches.append([row])
    return [microbatch_of(rollouts, batch, lengths, pad_id) for batch in batches]


def _filled(order: list[int], size: dict[int, int], tokens: int) -> list[list[int]]:
    """Rows, longest first, each in the first micro-batch that has room for it."""
    batches: list[list[int]] = []
    held: list[int] = []  # tokens of each
    for row in order:
        place = next((place for place, count in enumerate(held) if count + size[row] <= tokens), None)
        if place is None:
            batches.append([row])
            held.append(size[row])
        else:
            batches[place].append(row)
            held[place] += size[row]
    return batches


def _joins(size: int, longest: int, count: int, tokens: int) -> bool:
    """Whether a sequence goes into a micro-batch of `count`: it fits, and is not much shorter than the longest there.

    Below an eighth of the budget any that fits goes in: a pass of few tokens costs more than padding does.
    """
    return longest * (count + 1) <= tokens and (longest * count < tokens // 8 or size >= 0.9 * longest)


def dealt(batches: list[MicroBatch], processes: Processes) -> list[tuple[MicroBatch, bool]]:
    """This process's micro-batches, as many as any other's, and whether each is its own to count.

    They are dealt out in turn, longest first, so those of a round have about one size. In the last round a process may
    have none: it gets the first of that round, and does not count it, for in a pass of sharded weights all take part.
    """
    rounds = [batches[start : start + processes.size] for start in range(0, len(batches), processes.size)]
    return [
        (together[processes.rank], True) if processes.rank < len(together) else (together[0], False)
        for together in rounds
    ]


def shares(batches: list[MicroBatch], size: int) -> list[list[int]]:
    """By rank, the rows of the micro-batches that `dealt` has each process count."""
    return [[row for batch in batches[rank::size] for row in batch.rows] for rank in range(size)]


def microbatch_of(rollouts: list[Rollout], rows: list[int], lengths: list[int], pad_id: int) -> MicroBatch:
    """One micro-batch of these rows, `lengths[row]` counted tokens each."""
    sequences = [(*rollouts[row].request.prompt.token_ids, *rollouts[row].token_ids[: lengths[row]]) for row in rows]
    width = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    at_rows: list[int] = []
    at_columns: list[int] = []
    targets: list[int] = []
    for place, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
        input_ids[place, : len(sequence)] = torch.tensor(sequence)
        first = len(sequence) - lengths[row] - 1  # the last prompt token predicts the first of the completion
        at_rows += [place] * lengths[row]
        at_columns += range(first, first + lengths[row])
        targets += rollouts[row].token_ids[: lengths[row]]
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
