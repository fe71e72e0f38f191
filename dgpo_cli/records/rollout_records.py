"""Rollouts as records: what rollouts.jsonl holds of each completion, its tokens and their credit."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.progress import each
from dgpo_cli.types import Rollout, Verdict


def rollout_records(
    model: LanguageModel,
    rollouts: list[Rollout],
    verdicts: list[Verdict],
    rewards: Sequence[float | None],
    advantages: Sequence[float | None],
    signals: TokenSignals | None,
    credit: Credit | None,
    *,
    noise_floor: float | None = None,
    control_seeds: Sequence[int] | None = None,
    credit_updates: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """One record a rollout. Lists hold one value a counted token; they are null for a rollout that was not scored.

    `logprobs` are the trainer's, of the counted tokens; `engine_logprobs` those that every token was drawn with, by the
    weights after training step `policy_step` (0: before the first; null outside of training).
    What credit depends on beside the tokens stands in each record, so that it can be computed again from the file alone
    (see `stored`): `vocabulary_size`, `noise_floor` (null where it was not measured) and `control_seed`.

    `credit_updates`: where credit is the mean over updates that each had their own (gating.score_policy=current), how
    many of them trained each rollout. Such credit does not follow from the record's signals, which are of the policy
    that sampled; with 0 of them it is null.
    """
    spell = token_speller(model)
    records: list[dict[str, Any]] = []
    for row, (rollout, verdict) in enumerate(each(zip(rollouts, verdicts, strict=True))):
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
            "policy_step": rollout.policy_step,
            "token_ids": list(rollout.token_ids),
            "tokens": [spell(token) for token in rollout.token_ids],
            "logprobs": _values(signals.logprobs, row, length) if signals is not None and length else None,
            "engine_logprobs": None if rollout.logprobs is None else list(rollout.logprobs),
        }
        if signals is not None:
            record["entropy"] = _values(signals.entropy, row, length) if length else None
        if signals is not None and signals.hellinger is not None:
            record["ref_logprobs"] = _values(signals.ref_logprobs, row, length) if length else None
            record["hellinger"] = _values(signals.hellinger, row, length) if length else None
        if credit is not None:
            used = length if credit_updates is None or credit_updates[row] else 0
            record["score"] = _values(credit.score, row, length) if used else None
            record["credit"] = _values(credit.weights, row, length) if used else None
        if credit_updates is not None:
            record["credit_updates"] = credit_updates[row]
        record["vocabulary_size"] = model.vocabulary_size
        record["noise_floor"] = noise_floor
        record["control_seed"] = None if control_seeds is None else control_seeds[row]
        records.append(record)
    return records


def _values(table: Tensor | None, row: int, length: int) -> list[float] | None:
    return None if table is None else [float(value) for value in table[row, :length].tolist()]


def token_speller(model: LanguageModel) -> Callable[[int], str]:
    """id -> the text it stands for; `<id:N>` for rows of the head that the tokenizer does not know.

    A token that is only a part of a character has no text of its own: its bytes are spelled `<0xE2>`.
    """
    tokenizer, known = model.tokenizer, set(model.tokenizer.get_vocab().values())

    @lru_cache(maxsize=65_536)
    def spell(token: int) -> str:
        if token not in known:
            return f"<id:{token}>"
        text: str = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        piece = str(tokenizer.convert_ids_to_tokens(token))
        if "\ufffd" in text:
            return _spell_bytes(piece, text)
        # SentencePiece: a decoder drops the space before the first word of a text, and every token is one here.
        return f" {text}" if piece.startswith("\u2581") and not text.startswith(" ") else text

    return spell


def _spell_bytes(piece: str, text: str) -> str:
    """Whole characters as they are, stray bytes as `<0xE2>`. `text`: what to say of a piece of another kind."""
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", piece):
        return piece
    table = _byte_of_symbol()
    if not all(symbol in table for symbol in piece):
        return text
    return bytes(table[symbol] for symbol in piece).decode("utf-8", errors="dgpo_stray_bytes")


def _stray_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"<0x{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("dgpo_stray_bytes", _stray_bytes)


@lru_cache(maxsize=1)
def _byte_of_symbol() -> dict[str, int]:
    """The letters that byte-level BPE writes for bytes: printable ones for themselves, the rest from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(rest)}
