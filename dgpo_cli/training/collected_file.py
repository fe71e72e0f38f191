"""Collected rollouts in a checkpoint: those that were drawn ahead, by weights that no checkpoint holds any more.

Prompts and seeds follow from the numbers of a draw, so a hash of them is stored: it tells rollouts of other data or of
another seed than the run goes on with. Tokens and log-probs are in a safetensors file, the rest is JSON, whose numbers
come back to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.algorithm import Rewards
from dgpo_cli.training.collect import Collected
from dgpo_cli.types import Rollout, SampleRequest, ScoresGiven, Verdict

RECORDS, TOKENS = "ahead.json", "ahead.safetensors"
PLAIN = (
    *("next_draw", "refills", "exhausted", "sampled_lengths", "sampled_truncated"),
    *("rollout_seconds", "reward_seconds"),
)


class DrawnOtherwise(Exception):
    """The rollouts answer other requests than this run would make: its data, its seed or its group size has changed."""


def save_collected(collected: Collected, step: int, folder: Path) -> None:
    """Write what `step` will train on into two files of `folder`."""
    from safetensors.torch import save_file

    rollouts = collected.rollouts
    record: dict[str, Any] = {
        "step": step,
        **{name: getattr(collected, name) for name in PLAIN},
        "scores_given": [asdict(one) for one in collected.scores_given],
        "rollouts": [_plain_rollout(rollout) for rollout in rollouts],
        "verdicts": [_plain_verdict(verdict) for verdict in collected.verdicts],
        "sampled_verdicts": [_plain_verdict(verdict) for verdict in collected.sampled_verdicts],
        "rewards": _plain_rewards(collected.rewards),
        "sampled": _plain_rewards(collected.sampled),
    }
    (folder / RECORDS).write_text(json.dumps(record), encoding="utf-8")
    tokens = {
        "lengths": torch.tensor([len(rollout.token_ids) for rollout in rollouts], dtype=torch.int64),
        "token_ids": torch.tensor([one for rollout in rollouts for one in rollout.token_ids], dtype=torch.int32),
        "logprobs": torch.tensor([one for each in rollouts for one in each.logprobs or ()], dtype=torch.float64),
    }
    save_file(tokens, folder / TOKENS)


def load_collected(
    folder: Path, request: Callable[[int, int, int], SampleRequest], *, group_size: int
) -> Collected | None:
    """What `save_collected` wrote, equal in every field; None if nothing was drawn ahead.

    request: of a step, the number of a draw and of a sample. group_size: of the run that goes on.

    Raises:
        DrawnOtherwise: this run would have asked for something else.
    """
    from safetensors.torch import load_file

    if not (folder / RECORDS).is_file():
        return None
    record = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
    tokens = load_file(folder / TOKENS)
    lengths = tokens["lengths"].tolist()
    told = [length if one["has_logprobs"] else 0 for one, length in zip(record["rollouts"], lengths, strict=True)]
    token_ids, logprobs = tokens["token_ids"].split(lengths), tokens["logprobs"].split(told)
    requests = [request(record["step"], one["draw"], one["sample"]) for one in record["rollouts"]]
    alike = all(one["asked"] == _asked(asked) for one, asked in zip(record["rollouts"], requests, strict=True))
    if not alike or record["sampled"]["group_size"] != group_size:
        raise DrawnOtherwise
    rollouts = [
        Rollout(
            asked,
            tuple(ids.tolist()),
            one["text"],
            one["finish_reason"],
            logprobs=tuple(values.tolist()) if one["has_logprobs"] else None,
            policy_step=one["policy_step"],
        )
        for asked, one, ids, values in zip(requests, record["rollouts"], token_ids, logprobs, strict=True)
    ]
    return Collected(
        rollouts=rollouts,
        verdicts=[Verdict(**one) for one in record["verdicts"]],
        rewards=_rewards(record["rewards"]),
        sampled=_rewards(record["sampled"]),
        sampled_verdicts=[Verdict(**one) for one in record["sampled_verdicts"]],
        scores_given=tuple(ScoresGiven(**one) for one in record["scores_given"]),
        **{name: record[name] for name in PLAIN},
    )


def _asked(request: SampleRequest) -> str:
    """A hash of the prompt's tokens, its gold and the sample's seed."""
    prompt = request.prompt
    text = json.dumps([prompt.token_ids, prompt.problem.gold, request.seed])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain_rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "draw": rollout.request.draw,
        "sample": rollout.request.sample,
        "asked": _asked(rollout.request),
        "text": rollout.text,
        "finish_reason": rollout.finish_reason,
        "policy_step": rollout.policy_step,
        "has_logprobs": rollout.logprobs is not None,
    }


def _plain_verdict(verdict: Verdict) -> dict[str, Any]:
    parts = None if verdict.parts is None else dict(verdict.parts)
    return {
        "score": verdict.score,
        "correct": verdict.correct,
        "answer": verdict.answer,
        "error": verdict.error,
        "parts": parts,
    }


def _plain_rewards(rewards: Rewards) -> dict[str, Any]:
    return {
        "raw": rewards.raw.tolist(),
        "final": rewards.final.tolist(),
        "group_size": rewards.group_size,
        "correct": list(rewards.correct),
    }


def _rewards(record: dict[str, Any]) -> Rewards:
    raw, final = (torch.tensor(record[name], dtype=torch.float64) for name in ("raw", "final"))
    return Rewards(raw, final, record["group_size"], tuple(record["correct"]))
