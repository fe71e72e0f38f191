"""Rollouts as records: what rollouts.jsonl holds of each completion, its tokens and their credit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.models import LanguageModel
from dgpo_cli.types import Rollout, Verdict


def rollout_records(
    model: LanguageModel,
    rollouts: list[Rollout],
    verdicts: list[Verdict],
    rewards: Sequence[float | None],
    advantages: Sequence[float | None],
    signals: TokenSignals | None,
    credit: Credit | None,
) -> list[dict[str, Any]]:
    """One record a rollout. Lists hold one value a counted token; they are null for a rollout that was not scored."""
    spell = token_speller(model)
    records: list[dict[str, Any]] = []
    for row, (rollout, verdict) in enumerate(zip(rollouts, verdicts, strict=True)):
        prompt = rollout.request.prompt
        length = 0 if signals is None else int(signals.mask[row].sum())
        record: dict[str, Any] = {
            "prompt_id": prompt.problem.problem_id,
            "sample": rollout.request.sample,
            "prompt": prompt.text,
            "prompt_token_ids": list(prompt.token_ids),
            "completion": rollout.text,
            "gold": prompt.problem.gold,
            "answer": verdict.answer,
            "reward": rewards[row],
            "correct": verdict.correct,
            "error": verdict.error,
            "advantage": advantages[row],
            "finish_reason": rollout.finish_reason,
            "token_ids": list(rollout.token_ids),
            "tokens": [spell(token) for token in rollout.token_ids],
            "logprobs": _values(signals.logprobs, row, length) if signals is not None and length else None,
        }
        if signals is not None and signals.hellinger is not None:
            scored = signals if length else None
            record |= {
                "ref_logprobs": _values(signals.ref_logprobs, row, length) if scored else None,
                "entropy": _values(signals.entropy, row, length) if scored else None,
                "hellinger": _values(signals.hellinger, row, length) if scored else None,
                "score": _values(credit.score, row, length) if scored and credit is not None else None,
                "credit": _values(credit.weights, row, length) if scored and credit is not None else None,
            }
        records.append(record)
    return records


def _values(table: Tensor | None, row: int, length: int) -> list[float] | None:
    return None if table is None else [float(value) for value in table[row, :length].tolist()]


def token_speller(model: LanguageModel) -> Any:
    """id -> the text it stands for; `<id:N>` for rows of the head that the tokenizer does not know."""
    tokenizer, known = model.tokenizer, len(model.tokenizer)

    @lru_cache(maxsize=65_536)
    def spell(token: int) -> str:
        if token >= known:
            return f"<id:{token}>"
        text: str = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    return spell
