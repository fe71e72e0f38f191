"""From the policy to the servers, and a look at whether they compute by what they got: export, push, probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dgpo_cli.engines.vllm.client import VllmClient
from dgpo_cli.engines.vllm.conversation import CACHE, WEIGHTS
from dgpo_cli.engines.vllm.differences import different
from dgpo_cli.engines.vllm.engine import PushRefused
from dgpo_cli.engines.vllm.probe import LostServer, probe_gap, too_far
from dgpo_cli.engines.vllm.sync import WeightSync
from dgpo_cli.engines.vllm.turns import Turns
from dgpo_cli.models.export import exported
from dgpo_cli.models.policy import Policy
from dgpo_cli.processes import Processes

HINT = "the servers' logs say more; resume= continues from the last checkpoint"


class PolicyWeights:
    """The policy's weights on their way. dtype: that of the servers' weights."""

    def __init__(
        self,
        policy: Policy,
        sync: WeightSync,
        dtype: torch.dtype,
        processes: Processes,
        *,
        timeout_seconds: float,
        turns: Turns | None = None,
    ) -> None:
        self.policy = policy
        self.sync = sync
        self.turns = turns
        self.dtype = dtype
        self.processes = processes
        self.timeout_seconds = timeout_seconds
        self._urls: list[str] = []

    def connect(self, urls: list[str]) -> None:
        """Before the first push, and after a server was started anew. urls: the same in all processes."""
        self._urls = urls
        self.sync.init(urls)

    def push(self, version: int, clients: Sequence[VllmClient]) -> Mapping[str, float]:
        """Seconds, bytes, and the gap of the probe. Raises as `engine.Weights.push` does."""
        if self.turns is not None:  # the cache sleeps on meanwhile: its room may be needed to load
            self.turns.wake(self._urls, WEIGHTS)
        pushed = self.sync.push(version, exported(self.policy.model, self.dtype))
        if pushed.refusals:
            shown = "; ".join(f"{url}: {refusal.reason}" for url, refusal in pushed.refusals.items())
            dead = [self._urls.index(url) for url, refusal in pushed.refusals.items() if refusal.touched]
            raise PushRefused(f"the weights of step {version} were refused: {shown}", HINT, dead)
        if self.turns is not None:
            self.turns.wake(self._urls, CACHE)
        try:
            gap, limit = probe_gap(
                self._urls, self.policy.model, self.dtype, self.processes, seconds=self.timeout_seconds
            )
        except LostServer as lost:  # who is dead is seen before the next try
            raise PushRefused(f"no answer by the weights of step {version}: {lost}", HINT, ()) from lost
        if not gap <= limit:
            tensors = exported(self.policy.model, self.dtype)
            names = different(self._urls, tensors, self.processes, seconds=self.timeout_seconds)
            raise too_far(gap, limit, names)
        return {
            "engine/sync_seconds": pushed.seconds,
            "engine/sync_bytes": float(pushed.bytes),
            "engine/probe_gap": gap,
        }

    def check_owned(self) -> None:
        """Raises as `engine.Weights.check_owned` does."""
        self.sync.check_owned()

    def close(self) -> None:
        """Leave no files behind."""
        self.sync.close()
