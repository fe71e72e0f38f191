"""Problems of an engine before anything is started: its name, its command, its servers and what they are told."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import EvalConfig, TrainConfig
from dgpo_cli.config.engine_groups import EngineConfig, Sync
from dgpo_cli.config.groups import Device
from dgpo_cli.errors import Problem

# Words of vLLM's command line that dgpo says itself, with the key that changes each; "" if none may.
SAID_BY_DGPO = {
    "--model": "model.path",
    "--tokenizer": "",
    "--host": "",
    "--port": "",
    "--dtype": "engine.dtype",
    "--max-model-len": "engine.max_model_len",
    "--tensor-parallel-size": "engine.tensor_parallel",
    "-tp": "engine.tensor_parallel",
    "--gpu-memory-utilization": "engine.gpu_memory_fraction",
    "--enable-sleep-mode": "engine.colocated",
    "--seed": "",
    "--served-model-name": "",
    "--generation-config": "",
    "--logprobs-mode": "",
    "--worker-extension-cls": "",
    "--weight-transfer-config": "",
    "--tokens-only": "",
    "--skip-tokenizer-init": "",
    "--api-key": "",
}


def known_engine(config: Any) -> Iterator[Problem]:
    """Problems of `engine.*` for the command that it stands in."""
    engine, known = config.engine, catalogue.options("engine")
    if engine.name not in known:
        close = catalogue.nearest(engine.name, known)
        hint = f"did you mean engine={close}?" if close else " | ".join(known)
        yield Problem(f"engine.name: there is no engine '{engine.name}'", hint)
    elif engine.name == "openai" and not isinstance(config, EvalConfig):
        message = (
            "engine=openai: only dgpo eval takes it; training and rollouts need token ids and weights of their own"
        )
        yield Problem(message, "engine=transformers or engine=vllm")
    elif isinstance(config, EvalConfig) and config.benchmark.completions:
        return  # nothing is drawn
    elif engine.name == "openai":
        yield from _openai_server(engine)
    elif engine.name == "vllm":
        yield from _addresses(engine) if engine.urls else _own_servers(engine)
        yield from _sampling(config)
        if engine.colocated and isinstance(config, TrainConfig):
            yield from _in_turns(config)


def _openai_server(engine: EngineConfig) -> Iterator[Problem]:
    example = "engine.url=http://127.0.0.1:8000/v1"
    if not engine.url:
        yield Problem("engine.url: engine=openai needs the address of a server", example)
        return
    url = _split(engine.url)
    if url.username or url.password:  # not shown: it may be a secret
        yield Problem("engine.url: expected an address without credentials", "engine.api_key_env=NAME_OF_A_VARIABLE")
    elif url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        yield Problem(f"engine.url: expected http://HOST:PORT/v1, got '{engine.url}'", example)
    elif url.path.rstrip("/").endswith("/completions"):
        base = engine.url.partition("/chat/completions")[0].partition("/completions")[0]
        yield Problem(f"engine.url: expected the API's base address, got '{engine.url}'", f"engine.url={base}")
    if engine.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", engine.api_key_env):
        message = "engine.api_key_env: expected the name of an environment variable, not the key itself"
        yield Problem(message, "export API_KEY=..., then engine.api_key_env=API_KEY")


def _addresses(engine: EngineConfig) -> Iterator[Problem]:
    example = "engine.urls=[http://127.0.0.1:8000]"
    for text in engine.urls:
        url = _split(text)
        if url.username or url.password:  # not shown: it may be a secret
            message = "engine.urls: expected addresses without credentials"
            yield Problem(message, "the servers' interface has no keys: bind it to loopback or a private network")
        elif url.scheme != "http" or not url.hostname or not url.port or url.path.strip("/") or url.query:
            yield Problem(f"engine.urls: expected http://HOST:PORT, got '{text}'", example)
    bare = [text.rstrip("/") for text in engine.urls]
    twice = next((text for text in bare if bare.count(text) > 1), None)
    if twice is not None and not _split(twice).password:
        yield Problem(f"engine.urls: {twice} is named twice", "each server once")


def _own_servers(engine: EngineConfig) -> Iterator[Problem]:
    python = engine.python
    if python is not None and not (os.path.isfile(python) and os.access(python, os.X_OK)) and not shutil.which(python):
        message = f"engine.python: expected the path of an interpreter, got '{python}'"
        yield Problem(message, "engine.python=FOLDER/bin/python, of the environment in which vllm is installed")
    wanted, devices = engine.replicas * engine.tensor_parallel, engine.devices
    if devices is not None and len(devices) != wanted:
        message = (
            f"engine.devices: {len(devices)} for {engine.replicas} servers on {engine.tensor_parallel} devices each"
        )
        yield Problem(message, f"name {wanted}, or change engine.replicas or engine.tensor_parallel")
    elif devices is not None and len(set(devices)) < len(devices):
        yield Problem(f"engine.devices: {catalogue.show(devices)} names one twice", "each device serves once")
    for word in engine.extra_args:
        name = word.partition("=")[0]
        if name in SAID_BY_DGPO:
            by = SAID_BY_DGPO[name]
            hint = f"{by}= changes it" if by else "leave it out: rollouts would not be what dgpo takes them for"
            yield Problem(f"engine.extra_args: {name} is said by dgpo itself", hint)


def _in_turns(config: TrainConfig) -> Iterator[Problem]:
    """Servers that share the trainer's GPUs and sleep while it trains."""
    engine, strategy = config.engine, config.strategy
    apart = "engine.colocated=false gives the servers GPUs of their own"
    if engine.urls:
        message = "engine.colocated: the servers of engine.urls are not dgpo's, which puts only its own to sleep"
        yield Problem(message, "leave out engine.urls, or engine.colocated=false")
    if engine.devices is not None:
        yield Problem("engine.devices: colocated servers are on the trainer's own GPUs", f"leave it out; {apart}")
    if config.rollout.lag:
        message = f"rollout.lag={config.rollout.lag}: a colocated engine sleeps while the trainer works"
        yield Problem(message, f"rollout.lag=0; {apart}")
    if config.eval.overlap:
        message = "eval.overlap=true: a colocated engine sleeps while the trainer works"
        yield Problem(message, f"eval.overlap=false; {apart}")
    if engine.sync is Sync.group:
        message = "engine.sync=group: nccl connects no two processes on one GPU, as colocated servers and trainer are"
        yield Problem(message, "engine.sync=files")
    if strategy.device is Device.cpu:
        message = "engine.colocated: strategy.device=cpu, and vLLM's servers can sleep on GPUs alone"
        yield Problem(message, "engine.colocated=false")
    trainers = 1 if strategy.name == "single" else strategy.num_processes
    wanted = engine.replicas * engine.tensor_parallel
    if trainers is not None and wanted > trainers:
        message = (
            f"engine.colocated: {engine.replicas} servers on {engine.tensor_parallel} GPUs each need {wanted}, and "
            f"the trainer has {trainers}"
        )
        yield Problem(message, f"a smaller engine.replicas or engine.tensor_parallel; {apart}")


def _sampling(config: Any) -> Iterator[Problem]:
    """Log-probs that come back are those of the distribution that was drawn from, cut if top_p is below 1."""
    if isinstance(config, TrainConfig) and config.rollout.top_p < 1:
        message = (
            f"rollout.top_p={config.rollout.top_p}: engine=vllm gives log-probs of the cut distribution, which the "
            "trained policy does not have"
        )
        yield Problem(message, "rollout.top_p=1, or engine=transformers")
    longest = config.engine.max_model_len
    name, limit = _longest_completion(config)
    if longest is not None and 1 <= longest <= limit and not config.engine.urls:
        message = f"engine.max_model_len: {longest} leaves no room for a prompt beside {name}={limit}"
        yield Problem(message, "null takes what is needed")


def _longest_completion(config: Any) -> tuple[str, int]:
    if isinstance(config, EvalConfig):
        return "benchmark.max_tokens", config.benchmark.max_tokens
    return "rollout.max_completion_tokens", config.rollout.max_completion_tokens


def _split(text: str) -> SplitResult:
    """The parts of an address; empty ones if it is none."""
    try:
        url = urlsplit(text)
        _ = url.port  # raises if it is no number
    except ValueError:
        return urlsplit("")
    return url
