"""One row of metrics.jsonl a step: every key always there, a value or null."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch

from dgpo_cli.core.diagnostics import quantile
from dgpo_cli.training.collect import Collected, within_group_std
from dgpo_cli.training.step import StepResult, merged
from dgpo_cli.types import Verdict

# Always present. What a reader can rely on: a change here is an entry in CHANGELOG.md.
KEYS = (
    "step",
    "time",
    "reward/mean",
    "reward/std",
    "accuracy",
    "loss",
    "grad_norm",
    "lr",
    "kl",
    "kl/max",
    "entropy/mean",
    "ratio/clip_low",
    "ratio/clip_high",
    "ratio/first_minibatch_error",
    "completion/length_mean",
    "completion/length_max",
    "completion/truncated",
    "groups/no_spread",
    "groups/all_correct",
    "groups/all_wrong",
    "groups/refills",
    "credit/ess",
    "credit/std",
    "credit/max",
    "credit/gini",
    "credit/top20",
    "credit/noise_gate",
    "hellinger/mean",
    "hellinger/p95",
    "hellinger/max",
    "score/mean",
    "score/max",
    "engine/logprob_gap_mean",
    "engine/logprob_gap_max",
    "engine/correction_ess",
    "engine/corrected_fraction",
    "reward/errors",
    "reward/timeouts",
    "reward/no_answer",
    "optim/updates",
    "optim/skipped",
    "optim/changed_fraction",
    "samples/generated",
    "samples/trained",
    "tokens/generated",
    "tokens/trained",
    "tokens/padding_fraction",
    "tokens/per_second",
    "seconds/rollout",
    "seconds/reward",
    "seconds/score",
    "seconds/train",
    "seconds/step",
    "seconds/idle_trainer",
    "seconds/idle_engine",
    "memory/peak_bytes",
)
# Of a run of several processes: traffic.py's kinds.
COMM = (
    *("comm/weights_bytes", "comm/heads_bytes", "comm/gradients_bytes", "comm/sequences_bytes"),
    *("comm/samples_bytes", "comm/signals_bytes", "comm/checkpoint_bytes", "comm/control_bytes"),
)
# Everything else is a function of the configuration and the seed, on one machine.
CLOCKED = ("time", "seconds/", "tokens/per_second", "memory/", "comm/", "engine/sync_seconds", "engine/turn_seconds")


def metrics_row(
    step: int,
    lr: float,
    collected: Collected,
    result: StepResult,
    diagnostics: dict[str, float | None],
    *,
    seconds: float,
    peak: int,
) -> dict[str, Any]:
    """The row of a finished step: rewards, lengths and groups of all that was sampled, the rest of what was trained."""
    row: dict[str, Any] = dict.fromkeys(KEYS)
    row |= {"step": step, "time": time.time(), "lr": lr}
    row |= _parts(collected.sampled_verdicts)
    row |= (
        _sampled(collected)
        | _trained(collected, result)
        | result.term_norms
        | result.cosines
        | result.engine_gap
        | diagnostics
    )
    row |= {
        "tokens/per_second": collected.tokens_generated / seconds if seconds else None,
        "seconds/rollout": collected.rollout_seconds,
        "seconds/reward": collected.reward_seconds,
        "seconds/score": result.score_seconds,
        "seconds/train": result.train_seconds,
        "seconds/step": seconds,
        "memory/peak_bytes": peak,
    }
    return row


def traffic_row(traffic: dict[str, int]) -> dict[str, int]:
    """What processes brought each other since the last row."""
    return {name: traffic[name.removeprefix("comm/").removesuffix("_bytes")] for name in COMM}


def _sampled(collected: Collected) -> dict[str, Any]:
    rewards, verdicts = collected.sampled, collected.sampled_verdicts
    groups = max(1, rewards.groups)
    right, wrong = rewards.right_and_wrong_groups() or (None, None)
    lengths = collected.sampled_lengths
    return {
        "reward/mean": float(rewards.final.mean()),
        "reward/std": within_group_std(rewards),
        "accuracy": rewards.accuracy,
        "completion/length_mean": sum(lengths) / len(lengths),
        "completion/length_max": max(lengths),
        "completion/truncated": collected.sampled_truncated / len(lengths),
        "groups/no_spread": rewards.groups_without_spread() / groups,
        "groups/all_correct": None if right is None else right / groups,
        "groups/all_wrong": None if wrong is None else wrong / groups,
        "groups/refills": collected.refills,
        "reward/errors": sum(verdict.error not in (None, "no_answer") for verdict in verdicts),
        "reward/timeouts": sum(verdict.error == "timeout" for verdict in verdicts),
        "reward/no_answer": sum(verdict.error == "no_answer" for verdict in verdicts),
        "samples/generated": len(lengths),
        "tokens/generated": collected.tokens_generated,
    }


def _parts(verdicts: list[Verdict]) -> dict[str, float]:
    """`reward/NAME` of each part that a reward function gives by name: the mean over the rollouts that have it."""
    values: dict[str, list[float]] = {}
    for verdict in verdicts:
        for name, value in (verdict.parts or {}).items():
            values.setdefault(name, []).append(value)
    return {f"reward/{name}": sum(found) / len(found) for name, found in values.items()}


def _trained(collected: Collected, result: StepResult) -> dict[str, Any]:
    applied = [outcome for outcome in result.outcomes if outcome.applied]
    row: dict[str, Any] = {
        "samples/trained": len(collected.rollouts),
        "tokens/trained": 0,
        "optim/updates": len(applied),
        "optim/skipped": result.skipped,
        "optim/changed_fraction": _mean([outcome.changed_fraction for outcome in result.outcomes]) or 0.0,
        # A step without signal has no loss and no gradient: 0, not unknown.
        "loss": 0.0,
        "grad_norm": _mean([outcome.grad_norm for outcome in result.outcomes]) or 0.0,
    }
    if not result.tallies:
        return row
    total, first = merged(result.tallies), result.tallies[0]
    tokens = max(1, total.tokens)
    row |= {
        "loss": total.loss,
        "tokens/trained": total.tokens,
        "tokens/padding_fraction": total.padding / max(1, total.positions),
        "ratio/clip_low": total.clipped_low / tokens,
        "ratio/clip_high": total.clipped_high / tokens,
        "ratio/first_minibatch_error": first.ratio_error / max(1, first.tokens),
    }
    if total.kl_values:
        kl = torch.cat(total.kl_values)
        row |= {"kl": float(kl.double().mean()), "kl/max": float(kl.max()), "kl/p99": quantile(kl, 0.99)}
    return row


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def peak_bytes() -> int:
    """Most memory held so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
