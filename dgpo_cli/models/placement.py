"""Where a run's models compute: on which device, in which dtype, whole in each process or sharded over all of them.

It leaves out where weights come from (policy.py and reference.py read them), and how a model is cut into shards
(sharding.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch

from dgpo_cli.allocation import keep_freed_memory
from dgpo_cli.config.groups import ComputeDtype, Dtype, StrategyConfig
from dgpo_cli.config.model_groups import ModelConfig, Quantization
from dgpo_cli.config.precision import compute_dtype
from dgpo_cli.config.strategies import OFFLOADED, SHARDED
from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.frozen import cast_once
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.packed_attention import no_packing, pack_attention
from dgpo_cli.models.remote_code import admit, sources
from dgpo_cli.models.sequence_parallel import Team, no_team, team_of
from dgpo_cli.models.sharding import ShardSettings, shard, skeleton_of
from dgpo_cli.processes import SOLO, Processes, gpu_of

T = TypeVar("T")


def prepare_device(strategy: StrategyConfig, model: ModelConfig, processes: Processes = SOLO) -> Placement:
    """Set the number of CPU threads, and choose the device: each process of a run on GPUs has one of its own.

    A process that computes on the CPU keeps the memory that it frees. Beside a GPU that would be its weights'.

    Raises:
        RunError: cuda was asked for and there is none.
    """
    threads = threads_of(strategy, model)
    if threads is not None:
        torch.set_num_threads(threads)
    quantized, device = model.quantization is not Quantization.none, _device(strategy, processes)
    if device == "cpu":
        keep_freed_memory()
    return Placement(strategy, device, processes, model.dtype, quantized)


def threads_of(strategy: StrategyConfig, model: ModelConfig) -> int | None:
    """CPU threads of a process, and of a server of vLLM that it starts on a CPU; None leaves it to torch."""
    return strategy.threads or model.threads


def _device(strategy: StrategyConfig, processes: Processes) -> str:
    if strategy.device.name == "cuda" and not torch.cuda.is_available():
        raise RunError("strategy.device=cuda, but torch sees no GPU here", "strategy.device=auto or cpu")
    if strategy.device.name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return "cuda" if processes.alone else f"cuda:{gpu_of(processes.local_rank)}"


@dataclass(frozen=True)
class Placement:
    """Where models compute, and the way of a loaded model to there.

    If models are sharded, the main process alone reads weights. The others pass None for a model, and get their shards
    of it: all processes have to place the same models in the same order.
    """

    strategy: StrategyConfig
    device: str  # cpu, cuda or cuda:1
    processes: Processes
    weights: Dtype = Dtype.float32  # of the model's weights
    quantized: bool = False

    @property
    def shards(self) -> bool:
        return self.strategy.name in SHARDED

    @cached_property
    def team(self) -> Team:
        """The processes that share each sequence with this one."""
        return team_of(self.processes, self.strategy.sequence_parallel)

    @property
    def computes_in(self) -> Dtype:
        """The dtype of forward and backward."""
        return compute_dtype(self.strategy.compute_dtype, self.weights, self.device)

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """The dtype that passes are told to compute in; None leaves it to the weights."""
        left = self.strategy.compute_dtype is not ComputeDtype.bfloat16 and not self.device.startswith("cuda")
        return None if left or self.computes_in is Dtype.float32 else torch.bfloat16

    @property
    def loads_here(self) -> bool:
        """Whether this process reads weights."""
        return self.processes.main or not self.shards

    @property
    def loads_on(self) -> str:
        """The device that weights are read onto."""
        if self.quantized:
            return self.device  # codes are made where they compute
        # Weights that will be cast are cast on the CPU: the GPU never holds them in float32 as well.
        return "cpu" if self.shards or self.compute_dtype is not None else self.device

    def policy(self, loaded: LanguageModel | None) -> LanguageModel:
        """The policy where it computes. Its weights stay as they were loaded, if they take a gradient."""
        if self.shards:
            return self._sharded(loaded, rest_on_cpu=self.strategy.name == OFFLOADED, frozen=False)
        return self._whole(loaded)

    def reference(self, loaded: LanguageModel | None, *, renewed: bool = False) -> LanguageModel:
        """A frozen model of its own where it computes; `renewed` as in `frozen.cast_once`."""
        if self.shards:
            rest_on_cpu = self.strategy.reference_offload or self.strategy.name == OFFLOADED
            return self._sharded(loaded, rest_on_cpu=rest_on_cpu, frozen=True)
        return self._whole(loaded, renewed=renewed)

    def known(self, value: T | None) -> T:
        """The value that the process which reads weights found, in every process that needs it."""
        known = self.processes.from_main(value) if self.shards else value
        assert known is not None
        return known

    def _whole(self, loaded: LanguageModel | None, *, renewed: bool = False) -> LanguageModel:
        assert loaded is not None
        packs = self._adapt(loaded)
        model = cast_once(
            replace(loaded, packs=packs, team=self.team, compute_dtype=self.compute_dtype), renewed=renewed
        )
        return model.on(self.device)

    def _sharded(self, loaded: LanguageModel | None, *, rest_on_cpu: bool, frozen: bool) -> LanguageModel:
        code = self.known({} if loaded is None else sources())
        if loaded is None:
            admit(code)
        shell = self.known(None if loaded is None else self._shell_of(loaded))
        settings = ShardSettings(
            torch.device(self.device),
            getattr(torch, self.computes_in.name),
            rest_on_cpu,
            self.strategy.gather_for_generation,
        )
        if frozen:
            # A pass reads nothing of frozen weights but their cast: the same numbers in half the memory.
            _cast_all(shell.model, settings.compute_dtype)
        shard(shell.model, settings, None if loaded is None else loaded.model)
        packs = self._adapt(shell)
        return replace(shell, shards=settings, packs=packs, team=self.team, compute_dtype=self.compute_dtype)

    def _shell_of(self, loaded: LanguageModel) -> LanguageModel:
        """The same model without memory for its weights: it can be sent to the other processes."""
        if not loaded.has_head:
            raise ConfigError(
                f"strategy={self.strategy.name}: the output head of {type(loaded.model).__name__} cannot be told "
                "apart from its body, so it cannot be sharded",
                "strategy=single or strategy=ddp",
            )
        skeleton = skeleton_of(loaded.model)
        adapter = None if loaded.adapter is None else replace(loaded.adapter, model=skeleton)
        return replace(loaded, model=skeleton, adapter=adapter)

    def _adapt(self, placed: LanguageModel) -> bool:
        """Whether it takes packed rows from now on.

        Raises:
            ConfigError: it is to take them, and its attention cannot, or not in a team.
        """
        model = placed.model
        asked, size = self.strategy.packing, self.strategy.sequence_parallel
        wanted = asked if asked is not None else size > 1 or (self.shards and not self.strategy.compile)
        why = no_packing(model) if wanted else None
        if size > 1 and (why := why or no_team(model, size)) is not None:
            raise ConfigError(
                f"strategy.sequence_parallel={size}: {why} ({placed.path})", "strategy.sequence_parallel=1"
            )
        if asked and why is not None:
            raise ConfigError(f"strategy.packing=true: {why} ({placed.path})", "strategy.packing=false")
        packs = wanted and why is None
        if packs:
            pack_attention(model)
        adapt_layers(model, checkpointing=self.strategy.activation_checkpointing, compiled=self.strategy.compile)
        return packs


def _cast_all(model: Any, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(False)
