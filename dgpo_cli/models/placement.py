"""Where a run's models compute: in this process, in several that each have them whole, or shared out among those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from dgpo_cli.config.groups import ComputeDtype, Dtype, StrategyConfig
from dgpo_cli.config.precision import compute_dtype
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.adapted_layers import adapt_layers, give_compilers_time
from dgpo_cli.models.language_model import LanguageModel, Policy
from dgpo_cli.models.sharding import ShardSettings, shard, skeleton_of
from dgpo_cli.processes import Processes


@dataclass(frozen=True)
class Placement:
    """Puts a loaded model where it computes. Only the main process reads weights that are shared out."""

    strategy: StrategyConfig
    device: str  # cpu, cuda or cuda:1
    processes: Processes
    weights: Dtype = Dtype.float32  # of the model's weights

    @property
    def shards(self) -> bool:
        return self.strategy.name in ("fsdp", "fsdp_offload")

    @property
    def computes_in(self) -> Dtype:
        """The dtype of forward and backward."""
        return compute_dtype(self.strategy.compute_dtype, self.weights, self.device)

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """What passes are told to compute in; None leaves it to the weights."""
        left = self.strategy.compute_dtype is not ComputeDtype.bfloat16 and not self.device.startswith("cuda")
        return None if left or self.computes_in is Dtype.float32 else torch.bfloat16

    def policy(self, load: Callable[[str], Policy], *, trains: bool = True) -> Policy:
        """The policy that `load(device)` gives; without `trains` no weight of it takes a gradient."""
        if not self.shards:
            policy = load(self._loads_on)
            if not trains:
                policy.model.model.requires_grad_(False)
            return replace(policy, model=self._whole(policy.model))
        source = load("cpu") if self.processes.main else None
        stop_ids = self.processes.from_main(None if source is None else source.stop_ids)
        whole = None if source is None else source.model
        model = self._shared(whole, rest_on_cpu=self.strategy.name == "fsdp_offload")
        return Policy(model, stop_ids or frozenset())

    def reference(self, load: Callable[[str], LanguageModel], *, renewed: bool = False) -> LanguageModel:
        """The frozen reference that `load(device)` gives; `renewed` as in `LanguageModel.frozen_copy`."""
        if not self.shards:
            return self._whole(load(self._loads_on), renewed=renewed)
        source = load("cpu") if self.processes.main else None
        rests = self.strategy.reference_offload or self.strategy.name == "fsdp_offload"
        return self._shared(source, rest_on_cpu=rests, frozen=True)

    @property
    def _loads_on(self) -> str:
        """Weights that are cast come to the device in the dtype that they are held in there."""
        return self.device if self.compute_dtype is None else "cpu"

    def _whole(self, model: LanguageModel, *, renewed: bool = False) -> LanguageModel:
        self._adapt(model.model)
        model = replace(model, compute_dtype=self.compute_dtype).with_frozen_cast(renewed=renewed)
        return model.on(self.device)

    def _shared(self, source: LanguageModel | None, *, rest_on_cpu: bool, frozen: bool = False) -> LanguageModel:
        shell = None
        if source is not None:
            if not source.has_head:
                raise ConfigError(
                    f"strategy={self.strategy.name}: the output head of {type(source.model).__name__} cannot be told "
                    "apart from its body, so it cannot be sharded",
                    "strategy=single or strategy=ddp",
                )
            skeleton = skeleton_of(source.model)
            adapter = None if source.adapter is None else replace(source.adapter, model=skeleton)
            shell = replace(source, model=skeleton, adapter=adapter)
        shell = self.processes.from_main(shell)
        assert shell is not None
        settings = ShardSettings(
            torch.device(self.device),
            getattr(torch, self.computes_in.name),
            rest_on_cpu,
            self.strategy.gather_for_generation,
        )
        if frozen:
            # What is computed with is all that is ever read of them: the same numbers in half the memory.
            _cast(shell.model, settings.compute_dtype)
        shard(shell.model, settings, None if source is None else source.model)
        self._adapt(shell.model)
        return replace(shell, shards=settings, compute_dtype=self.compute_dtype)

    def _adapt(self, model: Any) -> None:
        if self.strategy.compile:
            give_compilers_time()
        adapt_layers(model, checkpointing=self.strategy.activation_checkpointing, compiled=self.strategy.compile)


def _cast(model: Any, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(False)
