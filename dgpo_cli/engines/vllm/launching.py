"""What a server of ours is started with: which words, which environment, which devices."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.environment import ALLOCATOR, ALLOCATOR_KEYS
from dgpo_cli.errors import ConfigError

WORKER = "dgpo_vllm.worker.Weights"
PLUGIN = Path(__file__).parent / "plugin"
# What a server is not told: the keys of services that it has no business with, and this process's place in a run.
SECRETS = re.compile(r"(?i)(^|_)(token|secret|passwd|pat|credentials?)($|_)|password|(api|_)key($|_)")
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
BATCHED_TOKENS = 4096  # of prompts that are computed at once on a CPU
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "TORCH_COMPILE_DISABLE": "1",  # it takes minutes
    # Threads that spin while they wait for each other take a core from the trainer and from other servers.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class Launch:
    """One server to start. gpus: the ids of its devices; empty on a CPU, with so many threads (None: as torch likes).

    longest: tokens of a sequence.
    """

    python: str
    folder: Path  # of the model
    dtype: str
    longest: int
    gpus: tuple[str, ...]
    trust_remote_code: bool
    threads: int | None = None


def command(settings: EngineConfig, launch: Launch, port: int, owner: int) -> list[str]:
    """The words that start a server on `port` of this machine, which ends with the process `owner`."""
    words = [
        *(launch.python, "-m", "dgpo_vllm.serve", str(owner)),
        *("--model", str(launch.folder), "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", launch.dtype, "--max-model-len", str(launch.longest)),
        *("--tensor-parallel-size", str(settings.tensor_parallel), "--seed", "0"),
        "--skip-tokenizer-init",
        "--tokens-only",
        *("--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"),
        *("--worker-extension-cls", WORKER),
    ]
    if launch.gpus:
        words += ["--gpu-memory-utilization", str(settings.gpu_memory_fraction)]
        words += ["--enable-sleep-mode"] * settings.colocated
    else:
        # Whole prompts alone: vLLM turns a seeded generator back after a part of one, which a CPU's cannot do.
        most = max(launch.longest, BATCHED_TOKENS)
        words += ["--enforce-eager", "--block-size", "32"]
        words += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(most)]
    if launch.trust_remote_code:
        words.append("--trust-remote-code")
    return [*words, *settings.extra_args]


def environment(settings: EngineConfig, launch: Launch, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of a server: those of this process, without secrets and without its place among a run's processes.

    Paths of modules are handed on to this same interpreter alone: another one has packages of its own.
    """
    own = {name: value for name, value in given.items() if name not in PLACE and not SECRETS.search(name)}
    for name in ALLOCATOR_KEYS:  # dgpo's own choice: a server that sleeps cannot do with it
        if own.get(name) == ALLOCATOR:
            del own[name]
    modules = given.get("PYTHONPATH") if launch.python == sys.executable else None
    own["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), *filter(None, [modules])])
    own |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if launch.gpus:
        return own | {"CUDA_VISIBLE_DEVICES": ",".join(launch.gpus)}
    for name, value in ON_CPU.items():
        own.setdefault(name, value)
    if launch.threads is not None:
        own["OMP_NUM_THREADS"] = str(launch.threads)
    if settings.tensor_parallel == 1:
        own.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    else:
        threads = range(settings.tensor_parallel)
        own.setdefault("VLLM_CPU_OMP_THREADS_BIND", "|".join(map(str, threads)))
    return own


def free_port(taken: Collection[int] = ()) -> int:
    """A port of this machine that nobody listens on. taken: those of servers that do not listen yet."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port not in taken:
            return port


def devices_of_servers(
    settings: EngineConfig, *, seen: int, trainers: int, visible: str | None = None
) -> list[tuple[str, ...]]:
    """The GPUs of each server: those named, else those after the trainer's own, or these if they are shared.

    None on a machine without. visible: CUDA_VISIBLE_DEVICES of this process, whose first entry is torch's GPU 0.

    Raises:
        ConfigError: there are not enough.
    """
    each, wanted = settings.tensor_parallel, settings.replicas * settings.tensor_parallel
    if settings.devices is None and not seen:
        return [()] * settings.replicas
    here = [one.strip() for one in visible.split(",")] if visible else [str(one) for one in range(seen)]
    ids = settings.devices or (here[:trainers] if settings.colocated else here[trainers:])
    if len(ids) < wanted and settings.colocated:
        raise ConfigError(
            f"engine.colocated: {settings.replicas} servers on {each} GPUs each need {wanted}, and the trainer has "
            f"{len(ids)} on this machine",
            "smaller engine.replicas or engine.tensor_parallel; engine.colocated=false gives the servers GPUs of "
            "their own",
        )
    if len(ids) < wanted:
        raise ConfigError(
            f"engine=vllm: {settings.replicas} servers on {each} GPUs each need {wanted} beside the trainer's "
            f"{trainers}, and torch sees {seen} here",
            "smaller engine.replicas or engine.tensor_parallel; strategy.num_processes leaves more; engine.urls names "
            "servers of other machines",
        )
    return [tuple(ids[first : first + each]) for first in range(0, wanted, each)]
