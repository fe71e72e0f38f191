"""Problems of `model.quantization` and `optim.states`, before torch or bitsandbytes is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.groups import OptimizerStates
from dgpo_cli.config.model_groups import Quantization
from dgpo_cli.config.rollout_files import is_of_others
from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.errors import Problem


def quantized_training(config: TrainConfig) -> Iterator[Problem]:
    """Problems in `dgpo train`, where codes stay as they are and adapters are trained."""
    kind, strategy = config.model.quantization, config.strategy
    if kind is Quantization.none:
        return
    asked = f"model.quantization={kind.value}"
    yield from _needs_bitsandbytes(asked)
    if not config.model.lora.rank:
        yield Problem(f"{asked}: quantised weights take no gradient", "model.lora.rank=16 trains adapters on them")
    if config.model.lora.merge:
        message = f"{asked} with model.lora.merge=true: merged into weights in full precision it is another policy"
        yield Problem(message, "leave model.lora.merge out: the adapter's folder names its base and its quantisation")
    if strategy.name in SHARDED:
        message = f"{asked}: strategy={strategy.name} shards weights, and codes of 4 or 8 bits are not sharded here"
        yield Problem(message, "strategy=single or strategy=ddp")
    if strategy.compile:
        yield Problem(f"{asked} with strategy.compile=true: not tried, so not offered", "leave one of them out")
    yield from _not_on_a_server(config, asked)


def optimizer_states(config: TrainConfig) -> Iterator[Problem]:
    """Problems of moments in 8 bits."""
    kind, strategy = config.optim.states, config.strategy
    if kind is OptimizerStates.float32:
        return
    asked = f"optim.states={kind.value}"
    yield from _needs_bitsandbytes(asked)
    if strategy.name in SHARDED:
        message = f"{asked}: strategy={strategy.name} shards moments, and 8-bit codes with their scales are not sharded"
        yield Problem(message, "strategy=single or strategy=ddp; shards make float32 moments smaller, too")


def quantized_evaluation(config: EvalConfig | RolloutConfig) -> Iterator[Problem]:
    """Problems in the commands that train nothing."""
    kind = config.model.quantization
    if kind is Quantization.none or config.engine.name == "openai":
        return
    if isinstance(config, EvalConfig) and config.benchmark.completions:
        return  # no model is loaded
    if isinstance(config, RolloutConfig) and (config.grade or (config.rollouts and not is_of_others(config.rollouts))):
        return
    asked = f"model.quantization={kind.value}"
    yield from _needs_bitsandbytes(asked)
    yield from _not_on_a_server(config, asked)


def _not_on_a_server(config: Any, asked: str) -> Iterator[Problem]:
    if config.engine.name == "vllm":
        message = f"{asked} with engine=vllm: the servers would compute from other weights than the policy's"
        yield Problem(message, "engine=transformers draws with the quantised weights themselves")


def _needs_bitsandbytes(asked: str) -> Iterator[Problem]:
    if importlib.util.find_spec("bitsandbytes") is None:
        hint = "pip install 'dgpo[quantization]'"
        yield Problem(f"{asked} needs bitsandbytes, which is not installed", hint)
