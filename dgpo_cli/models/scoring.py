"""The signals of every counted token: log-probs, entropies, distances, from micro-batches through a model.

No prompt or pad token is put through the output head. Credit is made of these signals in core/credit.py; how rollouts
become micro-batches is in microbatch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from dgpo_cli.core.alternatives import Alternatives, alternatives_from_logits, to_columns, token_alternatives, width
from dgpo_cli.core.credit import TokenSignals, measured
from dgpo_cli.core.token_stats import (
    TokenStats,
    logprobs_from_logits,
    stats_from_logits,
    token_logprobs,
    token_logprobs_and_stats,
    token_stats,
)
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import (
    Held,
    MicroBatch,
    dealt,
    make_microbatches,
    mask_of,
    mask_of_held,
    scatter_rows,
    shares,
)
from dgpo_cli.models.output_layer import logits_of
from dgpo_cli.models.sequence_parallel import Team
from dgpo_cli.models.shared_prompts import shared_states
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.progress import beat
from dgpo_cli.traffic import SIGNALS
from dgpo_cli.types import Rollout

FALLBACK_CHUNK = 256  # tokens whose logits are read at a time, of a model without `has_head`


def microbatches(
    model: LanguageModel,
    reference: LanguageModel | None,
    rollouts: list[Rollout],
    rows: list[int],
    lengths: list[int],
    *,
    tokens: int,
    processes: Processes,
) -> list[MicroBatch]:
    """As `make_microbatches`, for a pass through both: of all processes, which `dealt` deals them out to."""
    return make_microbatches(
        rollouts,
        rows,
        lengths,
        tokens=tokens,
        pad_id=model.pad_id,
        processes=processes.size,
        packed=model.packs and (reference is None or reference.packs),
        team=model.team.size,
    )


@contextmanager
def keeping_heads(model: LanguageModel, reference: LanguageModel | None) -> Iterator[None]:
    """As `LanguageModel.keeping_head`, of both."""
    with model.keeping_head(), nullcontext() if reference is None else reference.keeping_head():
        yield


def predictive_states(model: LanguageModel, batch: MicroBatch) -> Tensor:
    """The states that predict the counted tokens: hidden states [n, D], or logits [n, V] without `has_head`."""
    states = shared_states(model, batch)
    if states is None:
        states = _states_of_whole(model, batch)
    beat()
    return states


def _states_of_whole(model: LanguageModel, batch: MicroBatch) -> Tensor:
    device = model.device
    run = model.hidden_states if model.has_head else model.logits
    states: Tensor = run(batch.input_ids.to(device), batch.packed)[batch.at[0].to(device), batch.at[1].to(device)]
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
    return logprobs_from_logits(_logits(model, states), targets, temperature=temperature), stats


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
        reference = ref_states = None
    if model.has_head and (reference is None or reference.has_head):
        return token_stats(
            states,
            model.head(),
            targets,
            temperature=temperature,
            ref_hidden=ref_states,
            ref_head=None if reference is None else reference.head(),
        )
    ref_logits = None if reference is None or ref_states is None else _logits(reference, ref_states)
    return _chunked_stats(_logits(model, states), targets, ref_logits, temperature)


def _logits(model: LanguageModel, states: Tensor) -> Tensor:
    """Logits [n, V] of `predictive_states`, which are logits already without `has_head`."""
    return logits_of(model.head(), states) if model.has_head else states


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

    logprobs, entropy, grad_norm = joined("logprobs"), joined("entropy"), joined("grad_norm")
    assert logprobs is not None
    assert entropy is not None
    assert grad_norm is not None
    return TokenStats(logprobs, entropy, grad_norm, joined("ref_logprobs"), joined("hellinger"))


def signals_of_stats(stats: TokenStats, batch: MicroBatch) -> TokenSignals:
    """The micro-batch's statistics as [b, T], on the CPU: credit is computed there."""

    def rows(values: Tensor | None) -> Tensor | None:
        return None if values is None else scatter_rows(values.cpu(), batch)

    logprobs, entropy = rows(stats.logprobs), rows(stats.entropy)
    assert logprobs is not None
    assert entropy is not None
    return TokenSignals(
        batch.mask, logprobs, entropy, rows(stats.ref_logprobs), rows(stats.hellinger), rows(stats.grad_norm)
    )


def signals_of_team(signals: TokenSignals, batch: MicroBatch, team: Team) -> TokenSignals:
    """The signals [b, T] of whole rollouts from those of a team's parts, in each process of it."""
    if team.size == 1:
        return signals
    names = measured(has_reference=signals.hellinger is not None)
    # A token's number is in one part, and 0 in the others: a sum puts them together to the last bit.
    whole = team.total(torch.stack([getattr(signals, name) for name in names]), SIGNALS)
    return replace(signals, mask=mask_of(batch.lengths), **dict(zip(names, whole, strict=True)))


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
    alternatives: int = 0,
) -> TokenSignals:
    """The signals [B, T] of a whole batch in one pass over each model; rows left out of `rows` are 0 and unmasked.

    `alternatives`: also so many of the likeliest tokens of each model beside each sampled one.

    Several processes score a share each, and all get the whole. `after_each` is called after a micro-batch, in every
    process as often. `reference_states` gives the reference's states of one, if they are kept; else the reference runs.
    """
    rows = list(range(len(rollouts))) if rows is None else rows
    chosen = set(rows)
    mask = mask_of([length if row in chosen else 0 for row, length in enumerate(lengths)], max(lengths, default=0))
    values = {name: torch.zeros(mask.shape) for name in measured(has_reference=reference is not None)}
    if alternatives:
        columns = width(min(alternatives, model.vocabulary_size), has_reference=reference is not None)
        values["alternatives"] = torch.zeros(*mask.shape, columns)
    batches = microbatches(model, reference, rollouts, rows, lengths, tokens=tokens, processes=processes)
    mine = dealt(batches, processes, model.team)

    def score_share(after_each: Callable[[], None]) -> None:
        for batch, counts in mine:
            # One that another process counts is scored for the collectives of a pass alone.
            if counts or not model.apart:
                signals = _signals_of(model, reference, batch, temperature, reference_states, alternatives)
                processes.beat()
            if counts:
                _put(values, signals, batch)
            after_each()

    with keeping_heads(model, reference):
        processes.all_or_none(score_share, apart=model.apart, rounds=len(mine), after_each=after_each)
    if not processes.alone:
        flat = [table for value in values.values() for table in (value.unbind(-1) if value.dim() == 3 else [value])]
        share_values(flat, shares(batches, processes.size, model.team.size), processes)
    return TokenSignals(mask, **values)


def _signals_of(
    model: LanguageModel,
    reference: LanguageModel | None,
    batch: MicroBatch,
    temperature: float,
    reference_states: Callable[[MicroBatch], Tensor] | None,
    alternatives: int,
) -> TokenSignals:
    states, ref_states = predictive_states(model, batch), None
    if reference is not None:
        ref_states = reference_states(batch) if reference_states else predictive_states(reference, batch)
    stats = stats_of_states(model, states, batch, temperature=temperature, reference=reference, ref_states=ref_states)
    signals = signals_of_stats(stats, batch)
    if not alternatives:
        return signals
    found = to_columns(_alternatives(model, states, batch, temperature, reference, ref_states, alternatives)).cpu()
    table = torch.zeros(*batch.mask.shape, found.shape[1])
    table[batch.mask] = found
    return replace(signals, alternatives=table)


def _alternatives(
    model: LanguageModel,
    states: Tensor,
    batch: MicroBatch,
    temperature: float,
    reference: LanguageModel | None,
    ref_states: Tensor | None,
    count: int,
) -> Alternatives:
    """What both models would rather have said, from the states of the pass."""
    targets = batch.targets.to(states.device)
    if model.has_head and (reference is None or reference.has_head):
        ref_head = None if reference is None else reference.head()
        return token_alternatives(
            states,
            model.head(),
            targets,
            count=count,
            temperature=temperature,
            ref_hidden=ref_states,
            ref_head=ref_head,
        )
    ref_logits = None if reference is None or ref_states is None else _logits(reference, ref_states)
    logits = _logits(model, states)
    return alternatives_from_logits(logits, targets, count=count, temperature=temperature, ref_logits=ref_logits)


def _put(values: dict[str, Tensor], signals: TokenSignals, batch: MicroBatch) -> None:
    """Write a micro-batch's signals [b, T_b] into those of the whole batch [B, T]."""
    for name, whole in values.items():
        whole[batch.rows, : signals.mask.shape[1]] = getattr(signals, name)


def share_values(values: list[Tensor], shares: list[list[Held]], processes: Processes) -> None:
    """Put the [B, T] values of all processes together, in place. shares: by rank, the tokens that each holds."""
    counts = [sum(held.stop - held.start for held in share) for share in shares]
    parts = processes.rows_from_all(counted(values, shares[processes.rank]), counts, SIGNALS)
    for share, part in zip(shares, parts, strict=True):
        put_counted(values, share, part)


def counted(values: list[Tensor], held: list[Held]) -> Tensor:
    """[k, n]: of each of k values [B, T] the tokens that are held."""
    rows, mask = _places(values, held)
    return torch.stack([value[rows][mask] for value in values])


def put_counted(values: list[Tensor], held: list[Held], flat: Tensor) -> None:
    """Write what `counted` gave to the same tokens of k values [B, T], in place."""
    rows, mask = _places(values, held)
    for value, one in zip(values, flat, strict=True):
        value[rows] = value[rows].masked_scatter(mask, one)


def _places(values: list[Tensor], held: list[Held]) -> tuple[list[int], Tensor]:
    """Rows, and [b, T] True on the tokens of them that are held."""
    return [one.row for one in held], mask_of_held(held, values[0].shape[1])
