"""Collected rollouts with everything that a field can hold, for tests."""

from __future__ import annotations

import math

import torch

from dgpo_cli.algorithm import Rewards
from dgpo_cli.training.collect import Collected
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest, ScoresGiven, Verdict


def request(step: int, draw: int, sample: int) -> SampleRequest:
    """As a collector makes it: all of it follows from the three numbers."""
    prompt = Prompt(Problem(draw, str(draw), (("user", "?"),), "1"), "?", (3, draw))
    return SampleRequest(prompt, sample, seed=1000 * step + 10 * draw + sample, draw=draw)


def rewards(*values: float) -> Rewards:
    raw = torch.tensor(values, dtype=torch.float64)
    return Rewards(raw, raw - 0.1, 2, (True, None, *[False] * (len(values) - 2)))


ROLLOUTS = [
    Rollout(request(7, 4, 0), (5, 6, 2), "a\ud800é", "stop", logprobs=(-0.1, -1e-9, -1 / 3), policy_step=5),
    Rollout(request(7, 4, 1), (), "", "length", logprobs=(), policy_step=5),
    Rollout(request(7, 6, 0), (151_935,), "x", "stop"),
    Rollout(request(7, 6, 1), (9, 9), "y", "length", logprobs=(-math.inf, -2.5), policy_step=0),
]
VERDICTS = [
    Verdict(0.1 + 0.2, True, "7", parts={"form": 1 / 3}),
    Verdict(-math.inf, None, error="timeout"),
    Verdict(0.0, False, error="no_answer"),
    Verdict(1.0, True),
]
COLLECTED = Collected(
    rollouts=ROLLOUTS,
    verdicts=VERDICTS,
    rewards=rewards(0.1 + 0.2, 1 / 3, 0.0, 1.0),
    sampled=rewards(0.1 + 0.2, 1 / 3, 0.0, 1.0, 0.5, 0.5),
    sampled_verdicts=[*VERDICTS, Verdict(0.5, False), Verdict(0.5, False)],
    next_draw=9,
    refills=1,
    exhausted=True,
    sampled_lengths=[3, 0, 1, 2, 4, 4],
    sampled_truncated=2,
    rollout_seconds=1.25,
    reward_seconds=0.1,
    scores_given=(ScoresGiven(-1.5, has_worse=True, says_right=False), ScoresGiven()),
)
