"""Rollouts as records: what a line of rollouts.jsonl holds of a completion, its tokens and their credit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.progress import each
from dgpo_cli.records.alternatives import alternative_fields
from dgpo_cli.types import Rollout, Verdict


def rollout_records(
    rollouts: list[Rollout],
    verdicts: list[Verdict],
    rewards: Sequence[float | None],
    advantages: Sequence[float | None],
    signals: TokenSignals | None,
    credit: Credit | None,
    *,
    spell: Callable[[int], str],
    vocabulary_size: int,
    noise_floor: float | None = None,
    control_seeds: Sequence[int] | None = None,
    credit_updates: Sequence[int] | None = None,
    alternatives: Tensor | None = None,
) -> list[dict[str, Any]]:
    """One record for each of B rollouts. `signals` and `credit` are [B, T].

    `tokens`, `token_ids` and `engine_logprobs` have a value for every token. The other lists have one for each counted
    token: `logprobs` (by the trainer), `entropy`, `grad_norm`, `ref_logprobs`, `hellinger`, `score` and `credit`, and
    `first_error` (1 on the first wrong token) if an oracle gating asked for it. They are null for a rollout without
    counted tokens, which was not scored. `policy_step`: the training step whose weights drew it (0: before the first;
    null outside of training).

    A record also has the numbers that credit depends on beside the tokens: `vocabulary_size`, `noise_floor` (null if it
    was not measured) and `control_seed`. So credit can be computed again from the file alone (`stored_rollouts.py`).

    spell: the text of a token id (`token_spelling.py`).
    alternatives: [B, T, C] of core/alternatives.py, for the fields of `alternatives.py`.
    credit_updates: how many updates trained each rollout, if each update had credit of its own
        (gating.score_policy=current). `credit` is then the mean over them, and null for a rollout that none trained. It
        cannot be computed again: the record has the signals of the policy that sampled, not those of the later ones.
    """
    records = []
    for row, (rollout, verdict) in enumerate(each(zip(rollouts, verdicts, strict=True))):
        length = 0 if signals is None else int(signals.mask[row].sum())
        record = _completion(rollout, verdict, rewards[row], advantages[row])
        record["token_ids"] = list(rollout.token_ids)
        record["tokens"] = [spell(token) for token in rollout.token_ids]
        record |= _signals(signals, row, length, rollout.logprobs)
        if alternatives is not None and signals is not None and length:
            columns = alternatives[row, :length]
            record |= alternative_fields(columns, has_reference=signals.hellinger is not None, spell=spell)
        if credit is not None:
            trained = credit_updates is None or credit_updates[row] > 0
            record["score"] = _values(credit.score, row, length if trained else 0)
            record["credit"] = _values(credit.weights, row, length if trained else 0)
        if credit_updates is not None:
            record["credit_updates"] = credit_updates[row]
        record["vocabulary_size"] = vocabulary_size
        record["noise_floor"] = noise_floor
        record["control_seed"] = None if control_seeds is None else control_seeds[row]
        records.append(record)
    return records


def _completion(rollout: Rollout, verdict: Verdict, reward: float | None, advantage: float | None) -> dict[str, Any]:
    prompt = rollout.request.prompt
    record = {
        "prompt_id": prompt.problem.problem_id,
        "sample": rollout.request.sample,
        "prompt": prompt.text,
        "prompt_token_ids": list(prompt.token_ids),
        "completion": rollout.text,
        "gold": prompt.problem.gold,
        "answer": verdict.answer,
        "reward": reward,
        "correct": verdict.correct,
        "error": verdict.error,
        "advantage": advantage,
        "finish_reason": rollout.finish_reason,
        "policy_step": rollout.policy_step,
    }
    if verdict.parts is not None:
        record["reward_parts"] = dict(verdict.parts)
    return record


def _signals(
    signals: TokenSignals | None, row: int, length: int, engine_logprobs: tuple[float, ...] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "logprobs": None if signals is None else _values(signals.logprobs, row, length),
        "engine_logprobs": None if engine_logprobs is None else list(engine_logprobs),
    }
    if signals is not None:
        found["entropy"] = _values(signals.entropy, row, length)
        if signals.grad_norm is not None:
            found["grad_norm"] = _values(signals.grad_norm, row, length)
        if signals.first_error is not None:
            found["first_error"] = _values(signals.first_error, row, length)
    if signals is not None and signals.hellinger is not None:
        found["ref_logprobs"] = _values(signals.ref_logprobs, row, length)
        found["hellinger"] = _values(signals.hellinger, row, length)
    return found


def _values(table: Tensor | None, row: int, length: int) -> list[float] | None:
    return None if table is None or not length else [float(value) for value in table[row, :length].tolist()]
