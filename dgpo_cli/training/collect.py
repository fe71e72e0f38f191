"""A step's rollouts: prompts -> rollouts -> rewards. Dynamic sampling repeats that until enough groups can teach.

Prompts come in an order that (seed, epoch) fixes; every sample's randomness from (seed, step, draw index, sample). So
the same configuration collects the same rollouts, on whatever step a run is resumed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from dgpo_cli.algorithm import Algorithm, Rewards
from dgpo_cli.core.seeds import derive_seed, drawn_index
from dgpo_cli.engines import completed
from dgpo_cli.errors import RunError
from dgpo_cli.rewards.requests import of_rollout
from dgpo_cli.rewards.several import scores_given
from dgpo_cli.terminal import FirstPhases
from dgpo_cli.types import (
    Engine,
    Grader,
    Prompt,
    Rollout,
    SampleRequest,
    Sampling,
    ScoresGiven,
    Verdict,
)


@dataclass(frozen=True)
class Group:
    """The graded rollouts of one prompt."""

    rollouts: list[Rollout]
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Round:
    """What was drawn at once: the step's first groups, or a refill."""

    groups: list[Group]
    rollout_seconds: float
    reward_seconds: float


@dataclass(frozen=True)
class Collected:
    """What a step trains on, and what it took to get there."""

    rollouts: list[Rollout]  # B, the groups standing together, in draw order
    verdicts: list[Verdict]
    rewards: Rewards
    sampled: Rewards  # every group that was drawn, those dropped by dynamic sampling too
    sampled_verdicts: list[Verdict]
    next_draw: int
    refills: int
    exhausted: bool  # fewer groups than asked for, after the last refill
    sampled_lengths: list[int]
    sampled_truncated: int
    rollout_seconds: float
    reward_seconds: float
    scores_given: tuple[ScoresGiven, ...] = ()  # by each function of the user's, up to this step

    @property
    def tokens_generated(self) -> int:
        return sum(self.sampled_lengths)


class Collector:
    """Draws, samples and grades the groups of a step."""

    def __init__(
        self,
        prompts: list[Prompt],
        engine: Engine,
        grader: Grader,
        algorithm: Algorithm,
        sampling: Sampling,
        *,
        seed: int,
        group_size: int,
        prompts_per_step: int,
    ) -> None:
        self.prompts = prompts
        self.engine = engine
        self.grader = grader
        self.algorithm = algorithm
        self.sampling = sampling
        self.seed = seed
        self.group_size = group_size
        self.prompts_per_step = prompts_per_step
        self._phase = FirstPhases()

    def collect(self, step: int, draw: int) -> Collected:
        """The rollouts of `step`, the first prompt being draw number `draw`.

        Raises:
            RunError: dynamic sampling found no group to train on for the last refill and `on_exhausted` is stop; or
                the engine left a completion out, without which a group has no advantages.
        """
        dynamic = self.algorithm.algo.dynamic_sampling
        sampled: list[Group] = []
        kept: list[Group] = []
        rounds: list[Round] = []
        while True:
            wanted = self._wanted(len(kept), len(sampled))
            rounds.append(self._round(step, draw + len(sampled), wanted))
            fresh = rounds[-1].groups
            sampled += fresh
            kept += [group for group, keep in zip(fresh, self._informative(fresh), strict=True) if keep]
            if not dynamic.enabled or len(kept) >= self.prompts_per_step or len(rounds) > dynamic.max_refills:
                break
        if len(kept) < self.prompts_per_step and dynamic.on_exhausted.name == "stop":
            raise _exhausted(step, len(kept), self.prompts_per_step, len(rounds) - 1)
        return self._collected(rounds, sampled, kept, next_draw=draw + len(sampled))

    def _wanted(self, kept: int, sampled: int) -> int:
        """Prompts of the next round: what is missing over the share kept so far, at most a whole step's."""
        if not sampled:
            return self.prompts_per_step
        share = max(kept, 1) / sampled
        return min(self.prompts_per_step, math.ceil((self.prompts_per_step - kept) / share))

    def _round(self, step: int, first_draw: int, count: int) -> Round:
        """Prompts -> rollouts -> verdicts, of `count` prompts."""
        requests = self._requests(step, range(first_draw, first_draw + count))
        started = time.perf_counter()
        with self._phase("draw", f"step {step}: drawing {len(requests)} completions"):
            rollouts = completed(self.engine.generate(requests, self.sampling))
        drawn = time.perf_counter()
        with self._phase("grade", f"step {step}: grading {len(rollouts)} completions"):
            verdicts = self.grader.grade([of_rollout(rollout) for rollout in rollouts])
        graded = time.perf_counter()
        size = self.group_size
        groups = [
            Group(rollouts[start : start + size], verdicts[start : start + size])
            for start in range(0, len(rollouts), size)
        ]
        return Round(groups, drawn - started, graded - drawn)

    def _requests(self, step: int, draws: range) -> list[SampleRequest]:
        return [self.request(step, draw, sample) for draw in draws for sample in range(self.group_size)]

    def request(self, step: int, draw: int, sample: int) -> SampleRequest:
        """The completion number `sample` of prompt number `draw`, which `step` trains on."""
        return SampleRequest(
            prompt=self.prompts[drawn_index(self.seed, draw, len(self.prompts))],
            sample=sample,
            seed=derive_seed("sample", self.seed, step, draw, sample),
            draw=draw,
        )

    def _collected(self, rounds: list[Round], sampled: list[Group], kept: list[Group], *, next_draw: int) -> Collected:
        exhausted = len(kept) < self.prompts_per_step
        kept = kept[: self.prompts_per_step]  # the first by draw order
        everything = [rollout for group in sampled for rollout in group.rollouts]
        return Collected(
            rollouts=[rollout for group in kept for rollout in group.rollouts],
            verdicts=[verdict for group in kept for verdict in group.verdicts],
            rewards=self._rewards(kept),
            sampled=self._rewards(sampled),
            sampled_verdicts=[verdict for group in sampled for verdict in group.verdicts],
            next_draw=next_draw,
            refills=len(rounds) - 1,
            exhausted=exhausted,
            sampled_lengths=[len(rollout.token_ids) for rollout in everything],
            sampled_truncated=sum(rollout.truncated for rollout in everything),
            rollout_seconds=sum(one.rollout_seconds for one in rounds),
            reward_seconds=sum(one.reward_seconds for one in rounds),
            scores_given=scores_given(self.grader),
        )

    def _rewards(self, groups: list[Group]) -> Rewards:
        return self.algorithm.rewards(
            [rollout for group in groups for rollout in group.rollouts],
            [verdict for group in groups for verdict in group.verdicts],
            group_size=self.group_size,
            own_scores=self.grader.name == "function",
        )

    def _informative(self, groups: list[Group]) -> list[bool]:
        if not self.algorithm.algo.dynamic_sampling.enabled:
            return [True] * len(groups)
        return self._rewards(groups).informative_groups(self.algorithm.algo.dynamic_sampling.by)


def _exhausted(step: int, kept: int, wanted: int, refills: int) -> RunError:
    return RunError(
        f"dynamic sampling kept {kept} of {wanted} groups after {refills} refills in step {step}",
        "easier or harder data, a larger rollout.group_size, more algo.dynamic_sampling.max_refills, or "
        "algo.dynamic_sampling.on_exhausted=train",
    )


def within_group_std(rewards: Rewards) -> float:
    """Mean over the groups of the sample standard deviation of the rewards."""
    if not rewards.final.numel():
        return 0.0
    return float(torch.std(rewards.final.view(-1, rewards.group_size), dim=1).mean())
