"""From settings and a model to the engine of vLLM servers: those that dgpo starts, or those at `engine.urls`."""

from __future__ import annotations

import torch

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.crew import Crew
from dgpo_cli.engines.vllm.attached import AttachedServers
from dgpo_cli.engines.vllm.engine import Asking, VllmEngine
from dgpo_cli.engines.vllm.own_servers import OwnServers
from dgpo_cli.engines.vllm.served import Served, served_dtype
from dgpo_cli.engines.vllm.sync import make_sync
from dgpo_cli.engines.vllm.turns import Turns
from dgpo_cli.engines.vllm.weights import PolicyWeights
from dgpo_cli.models.policy import Policy
from dgpo_cli.processes import SOLO, Processes


def connect(settings: EngineConfig, policy: Policy, served: Served, crew: Crew | None = None) -> VllmEngine:
    """The engine, its servers not yet started: `prepare` does that. Every process of a run calls it.

    Raises:
        ConfigError: no interpreter has vLLM, or there are too few GPUs.
    """
    processes = SOLO if crew is None else crew.processes
    hosts = None
    if processes.main:
        hosts = AttachedServers(settings, served) if settings.urls else OwnServers(settings, served)
    seconds = settings.timeout_seconds
    turns = Turns(processes, timeout_seconds=seconds) if settings.colocated and served.trained else None
    weights = _weights(settings, policy, served, processes, turns) if served.trained else None
    asking = Asking(settings.batch_size, settings.concurrency, settings.retries, seconds)
    return VllmEngine(policy, hosts, weights, asking, crew, turns)


def _weights(
    settings: EngineConfig, policy: Policy, served: Served, processes: Processes, turns: Turns | None
) -> PolicyWeights:
    dtype: torch.dtype = getattr(torch, served_dtype(settings, served.computes_in))
    sync = make_sync(settings, processes)
    return PolicyWeights(policy, sync, dtype, processes, timeout_seconds=settings.timeout_seconds, turns=turns)
