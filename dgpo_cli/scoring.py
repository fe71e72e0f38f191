"""Rollouts through a model: micro-batches by a token budget, and the signals of every counted token.

Completions are never tokenised again, and no prompt or pad token is put through the output head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.token_stats import (
    TokenStats,
    logprobs_from_logits,
    stats_from_logits,
    token_logprobs,
    token_logprobs_and_stats,
    token_stats,
)
from dgpo_cli.models import LanguageModel, logits_of
from dgpo_cli.planning.memory import NOISE_ROLLOUTS
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.progress import beat
from dgpo_cli.types import Rollout

FALLBACK_CHUNK = 256  # tokens whose logits are read at a time where the head is not to be had


@dataclass(frozen=True)
class MicroBatch:
    """Right-padded sequences [b, L] and where their counted tokens are predicted."""

    rows: list[int]  # of the batch
    input_ids: Tensor
    attention_mask: Tensor | None  # None where nothing is padded
    lengths: list[int]  # counted tokens of each row
    at: tuple[Tensor, Tensor]  # (row, position) of the hidden state that predicts each counted token, [n] each
    targets: Tensor  # [n]
    padding: int  # pad positions among b * L

    @property
    def mask(self) -> Tensor:
        """[b, T] True on each row's counted tokens."""
        return mask_of(self.lengths)


def mask_of(lengths: list[int], width: int | None = None) -> Tensor:
    """[b, T] True on the first lengths[i] tokens of row i."""
    columns = max(lengths, default=0) if width is None else width
    return torch.arange(columns)[None, :] < torch.tensor(lengths, dtype=torch.long)[:, None]


def make_microbatches(
    rollouts: list[Rollout], rows: list[int], lengths: list[int], *, tokens: int, pad_id: int, processes: int = 1
) -> list[MicroBatch]:
    """Cut `rows` into micro-batches of at most `tokens` positions, padding included; longest sequences first, so that
    those together are of a length. Packing them without padding would need an attention kernel that can: not every one.

    `lengths[i]` are the counted tokens of rollout i; rows without any are left out. A sequence longer than the budget
    is a micro-batch of its own. For several processes the cuts are fine enough that each has work, where there is.
    """
    size = {row: _size(rollouts, lengths, row) for row in rows if lengths[row]}
    if processes > 1:
        tokens = min(tokens, -(-sum(size.values()) // processes))
    order = sorted(size, key=lambda row: (-size[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and _joins(size[row], size[batches[-1][0]], len(batches[-1]), tokens):
            batches[-1].append(row)
        else:
            batches.append([row])
    return [_microbatch(rollouts, batch, lengths, pad_id) for batch in batches]


def _joins(size: int, longest: int, count: int, tokens: int) -> bool:
    """Whether a sequence goes into a micro-batch of `count`: it fits, and is not much shorter than the longest there.

    Short of an eighth of the budget anything goes in: a pass of few tokens costs more than padding does.
    """
    return longest * (count + 1) <= tokens and (longest * count < tokens // 8 or size >= 0.9 * longest)


def dealt(batches: list[MicroBatch], processes: Processes) -> list[tuple[MicroBatch, bool]]:
    """This process's micro-batches, as many as any other's, and whether each is its own to count.

    They are dealt out in turn, longest first, so those of a round are of a size. Who has none in the last round takes
    the first of that round, which another counts.
    """
    rounds = [batches[start : start + processes.size] for start in range(0, len(batches), processes.size)]
    return [
        (together[processes.rank], True) if processes.rank < len(together) else (together[0], False)
        for together in rounds
    ]


def _microbatch(rollouts: list[Rollout], rows: list[int], lengths: list[int], pad_id: int) -> MicroBatch:
    sequences = [(*rollouts[row].request.prompt.token_ids, *rollouts[row].token_ids[: lengths[row]]) for row in rows]
    width = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    at_rows: list[int] = []
    at_columns: list[int] = []
    targets: list[int] = []
    for place, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
        input_ids[place, : len(sequence)] = torch.tensor(sequence)
        attention[place, : len(sequence)] = 1
        first = len(sequence) - lengths[row] - 1  # the last prompt token predicts the first of the completion
        at_rows += [place] * lengths[row]
        at_columns += range(first, first + lengths[row])
        targets += rollouts[row].token_ids[: lengths[row]]
    padding = int((attention == 0).sum())
    return MicroBatch(
        rows,
        input_ids,
        attention if padding else None,
        [lengths[row] for row in rows],
        (torch.tensor(at_rows), torch.tensor(at_columns)),
        torch.tensor(targets, dtype=torch.long),
        padding,
    )


def predictive_states(model: LanguageModel, batch: MicroBatch) -> Tensor:
    """What predicts each counted token: hidden states [n, D], or logits [n, V] where the head is not to be had."""
    device = model.device
    attention = batch.attention_mask.to(device) if batch.attention_mask is not None else None
    run = model.hidden_states if model.has_head else model.logits
    states = run(batch.input_ids.to(device), attention)[batch.at[0].to(device), batch.at[1].to(device)]
    beat()
    return states


def logprobs_and_stats(
    model: LanguageModel,
    states: Tensor,
    batch: MicroBatch,
    *,
    temperature: float,
    reference: LanguageModel | None = None,
    ref_states: Tensor | None = None,
) -> tuple[Tensor, TokenStats]:
    """log p of each counted token [n], with gradient to the model, and `stats_of_states` from the same pass."""
    targets = batch.targets.to(states.device)
    if model.has_head and (reference is None or reference.has_head):
        return token_logprobs_and_stats(
            states,
            model.head(),
            targets,
            temperature=temperature,
            ref_hidden=ref_states,
            ref_head=None if reference is None else reference.head(),
        )
    stats = stats_of_states(model, states, batch, temperature=temperature, reference=reference, ref_states=ref_states)
    logits = _whole_logits(model, states) if model.has_head else states
    return logprobs_from_logits(logits, targets, temperature=temperature), stats


def logprobs_of_states(model: LanguageModel, states: Tensor, batch: MicroBatch, *, temperature: float) -> Tensor:
    """log p of each counted token [n], with gradient to the model, and nothing else: two products of a frozen head."""
    targets = batch.targets.to(states.device)
    if model.has_head:
        return token_logprobs(states, model.head(), targets, temperature=temperature)
    return logprobs_from_logits(states, targets, temperature=temperature)


@torch.no_grad()
def stats_of_states(
    model: LanguageModel,
    states: Tensor,
    batch: MicroBatch,
    *,
    temperature: float,
    reference: LanguageModel | None = None,
    ref_states: Tensor | None = None,
) -> TokenStats:
    """Log-prob, entropy and, with a reference, its log-prob and the distance: [n] each, without gradient."""
    targets = batch.targets.to(states.device)
    states = states.detach()
    if reference is None or ref_states is None:
        if model.has_head:
            return token_stats(states, model.head(), targets, temperature=temperature)
        return _chunked_stats(states, targets, None, temperature)
    if model.has_head and reference.has_head:
        return token_stats(
            states,
            model.head(),
            targets,
            temperature=temperature,
            ref_hidden=ref_states,
            ref_head=reference.head(),
        )
    logits = states if not model.has_head else _whole_logits(model, states)
    ref_logits = ref_states if not reference.has_head else _whole_logits(reference, ref_states)
    return _chunked_stats(logits, targets, ref_logits, temperature)


def _whole_logits(model: LanguageModel, states: Tensor) -> Tensor:
    return logits_of(model.head(), states)


def _chunked_stats(logits: Tensor, targets: Tensor, ref_logits: Tensor | None, temperature: float) -> TokenStats:
    parts = [
        stats_from_logits(
            logits[start : start + FALLBACK_CHUNK],
            targets[start : start + FALLBACK_CHUNK],
            temperature=temperature,
            ref_logits=None if ref_logits is None else ref_logits[start : start + FALLBACK_CHUNK],
        )
        for start in range(0, max(1, len(targets)), FALLBACK_CHUNK)
    ]

    def joined(name: str) -> Tensor | None:
        pieces = [getattr(part, name) for part in parts]
        return None if pieces[0] is None else torch.cat(pieces)

    logprobs, entropy = joined("logprobs"), joined("entropy")
    assert logprobs is not None
    assert entropy is not None
    return TokenStats(logprobs, entropy, joined("ref_logprobs"), joined("hellinger"))


def scatter_rows(values: Tensor, batch: MicroBatch) -> Tensor:
    """Flat values [n] of a micro-batch to [b, T], 0 beyond each row's counted tokens; gradients pass."""
    mask = batch.mask.to(values.device)
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def signals_of_stats(stats: TokenStats, batch: MicroBatch) -> TokenSignals:
    """The micro-batch's statistics as [b, T] on the CPU, where credit is computed."""

    def rows(values: Tensor | None) -> Tensor | None:
        return None if values is None else scatter_rows(values.cpu(), batch)

    logprobs, entropy = rows(stats.logprobs), rows(stats.entropy)
    assert logprobs is not None
    assert entropy is not None
    return TokenSignals(batch.mask, logprobs, entropy, rows(stats.ref_logprobs), rows(stats.hellinger))


@torch.no_grad()
def score_rollouts(
    model: LanguageModel,
    reference: LanguageModel | None,
    rollouts: list[Rollout],
    lengths: list[int],
    *,
    temperature: float,
    tokens: int,
    rows: list[int] | None = None,
    processes: Processes = SOLO,
    after_each: Callable[[], None] = lambda: None,
    reference_states: Callable[[MicroBatch], Tensor] | None = None,
) -> TokenSignals:
    """The signals [B, T] of a whole batch in one pass over each model; rows left out of `rows` are 0 and unmasked.

    Several processes score a share each, and all get the whole. `after_each` is called after a micro-batch, in every
    process as often. `reference_states` gives what the reference says of one, where that is kept; else it runs.
    """
    rows = list(range(len(rollouts))) if rows is None else rows
    chosen = set(rows)
    mask = mask_of([length if row in chosen else 0 for row, length in enumerate(lengths)], max(lengths, default=0))
    result = {name: torch.zeros(mask.shape) for name in ("logprobs", "entropy")}
    if reference is not None:
        result |= {name: torch.zeros(mask.shape) for name in ("ref_logprobs", "hellinger")}
    batches = make_microbatches(rollouts, rows, lengths, tokens=tokens, pad_id=model.pad_id, processes=processes.size)

    mine = dealt(batches, processes)

    def score_share(after_each: Callable[[], None]) -> None:
        for batch, counts in mine:
            if not counts and model.shards is None:
                after_each()
                continue
            states = predictive_states(model, batch)
            ref_states = None
            if reference is not None:
                ref_states = reference_states(batch) if reference_states else predictive_states(reference, batch)
            stats = stats_of_states(
                model, states, batch, temperature=temperature, reference=reference, ref_states=ref_states
            )
            processes.beat()
            if counts:
                signals = signals_of_stats(stats, batch)
                for name, values in result.items():
                    values[batch.rows, : signals.mask.shape[1]] = getattr(signals, name)
            after_each()

    processes.all_or_none(score_share, apart=model.shards is None, rounds=len(mine), after_each=after_each)
    share_values(list(result.values()), mask, processes)
    return TokenSignals(
        mask, result["logprobs"], result["entropy"], result.get("ref_logprobs"), result.get("hellinger")
    )


def share_values(values: list[Tensor], mask: Tensor, processes: Processes) -> None:
    """Put together, in place, what each process holds of [B, T] values: every counted token stands in one of them."""
    if processes.alone or not values:
        return
    flat = processes.total(torch.stack([value[mask] for value in values]))
    for value, whole in zip(values, flat, strict=True):
        value[mask] = whole


@torch.no_grad()
def measure_noise_floor(
    model: LanguageModel,
    rollouts: list[Rollout],
    lengths: list[int],
    *,
    temperature: float,
    tokens: int,
    after_each: Callable[[], None] = lambda: None,
) -> float:
    """Mean d of the same weights scored in two ways that should agree: sequences alone, and padded into batches.

    Identical passes would give 0 and measure nothing. It can still be exactly 0. A pass has at most `tokens` positions,
    or one sequence; where no other fits beside a sequence, it is scored whole and, without its end, shorter.
    """
    distances = []
    for rows in _noise_groups(rollouts, lengths, tokens):
        short = [lengths[row] if len(rows) > 1 else -(-lengths[row] // 2) for row in rows]
        together = _microbatch(rollouts, rows, lengths, model.pad_id)
        joint = predictive_states(model, together)
        if len(rows) == 1:  # a causal model says the same of a token, whatever comes after it
            joint, together = joint[: short[0]], replace(together, targets=together.targets[: short[0]])
        after_each()
        alone = []
        for row, length in zip(rows, short, strict=True):
            apart = _microbatch([rollouts[row]], [0], [length], model.pad_id)
            alone.append(predictive_states(model, apart))
            after_each()
        stats = stats_of_states(
            model, joint, together, temperature=temperature, reference=model, ref_states=torch.cat(alone)
        )
        assert stats.hellinger is not None
        distances.append(stats.hellinger)
    return float(torch.cat(distances).double().mean()) if distances else 0.0


def noise_sizes(rollouts: list[Rollout], lengths: list[int], *, tokens: int) -> tuple[int, int]:
    """Positions of the largest pass of `measure_noise_floor`, and of its longest sequence."""
    groups = _noise_groups(rollouts, lengths, tokens)
    widths = [_size(rollouts, lengths, rows[0]) for rows in groups]
    return max(len(rows) * width for rows, width in zip(groups, widths, strict=True)), max(widths)


def _noise_groups(rollouts: list[Rollout], lengths: list[int], tokens: int) -> list[list[int]]:
    """The first rollouts with counted tokens, longest first, in groups that fit `tokens` padded to their longest."""
    rows = [row for row, length in enumerate(lengths) if length][:NOISE_ROLLOUTS]
    groups: list[list[int]] = []
    for row in sorted(rows, key=lambda row: (-_size(rollouts, lengths, row), row)):
        if groups and _size(rollouts, lengths, groups[-1][0]) * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _size(rollouts: list[Rollout], lengths: list[int], row: int) -> int:
    """Tokens of a sequence, the prompt among them."""
    return len(rollouts[row].request.prompt.token_ids) + lengths[row]
