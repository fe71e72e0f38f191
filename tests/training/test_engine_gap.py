"""The gap between an engine's log-probs and the trainer's, in numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.training.engine_gap import logprob_gap
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

REQUEST = SampleRequest(Prompt(Problem(0, "0", (), ""), "", (1,)), 0, 0)


def rollout(*logprobs: float) -> Rollout:
    return Rollout(REQUEST, tuple(range(len(logprobs))), "", "stop", logprobs=logprobs or None)


def signals(values: list[list[float]], mask: list[list[bool]]) -> TokenSignals:
    table = torch.tensor(values)
    return TokenSignals(torch.tensor(mask), table, torch.zeros_like(table), None, None)


def test_gaps_up_and_down_do_not_cancel_and_uncounted_tokens_are_left_out() -> None:
    scored = signals([[-1.0, -2.0, 0.0], [-1.5, 0.0, 0.0]], [[True, True, False], [False, False, False]])
    gap = logprob_gap([rollout(-1.25, -1.5, -9.0), rollout(-7.0, -7.0)], scored)
    # |-1 + 1.25| = 0.25 and |-2 + 1.5| = 0.5
    assert gap == {"engine/logprob_gap_mean": pytest.approx(0.375), "engine/logprob_gap_max": pytest.approx(0.5)}


def test_an_engine_without_log_probs_leaves_the_gap_unknown() -> None:
    scored = signals([[-1.0]], [[True]])
    assert logprob_gap([rollout()], scored) == {}
