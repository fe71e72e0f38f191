"""What the processes of a run get of a step's rollouts: those beside the main one only what they train on.

Texts, verdicts and whatever is said of a step stay in the main process, which writes them down.
"""

from __future__ import annotations

from dataclasses import dataclass

from dgpo_cli.algorithm import Rewards
from dgpo_cli.rollout_arrays import TrainedArrays
from dgpo_cli.training.collect import Collected


@dataclass(frozen=True)
class HandedOut:
    """A step's rollouts on their way to the other processes."""

    arrays: TrainedArrays
    rewards: Rewards
    next_draw: int

    @classmethod
    def of(cls, collected: Collected, *, logprobs: bool) -> HandedOut:
        """logprobs: whether training asks for those that the rollouts were drawn with."""
        arrays = TrainedArrays.of(collected.rollouts, logprobs=logprobs)
        return cls(arrays, collected.rewards, collected.next_draw)

    def collected(self) -> Collected:
        """What a process that does not speak of the step has of it."""
        return Collected(
            rollouts=self.arrays.rollouts(),
            verdicts=[],
            rewards=self.rewards,
            sampled=self.rewards,
            sampled_verdicts=[],
            next_draw=self.next_draw,
            refills=0,
            exhausted=False,
            sampled_lengths=[],
            sampled_truncated=0,
            rollout_seconds=0.0,
            reward_seconds=0.0,
        )
