"""`engine=`: the generator of completions. Keys of one engine alone say so at the start of their meaning.

What does not go together is refused in `engine_checks`; what changes nothing beside another engine, in `idle_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dgpo_cli.config.groups import OffPolicyCorrection, key


class MaxTokensKey(Enum):
    max_tokens = "max_tokens"
    max_completion_tokens = "max_completion_tokens"


class EngineDtype(Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Sync(Enum):
    files = "files"
    group = "group"


@dataclass
class EngineConfig:
    """`engine=`: transformers | vllm | openai."""

    name: str = key(
        "transformers",
        "transformers: in this process | vllm: servers of vLLM, which dgpo starts or finds at engine.urls | openai: a "
        "server of that protocol, dgpo eval only",
    )
    batch_size: int = key(
        128,
        "completions generated together. transformers: a generation unit, so results depend on it. vllm and openai: "
        "what dgpo eval asks for between two writes of its files; results do not depend on it",
        "rollouts",
    )
    concurrency: int = key(
        32, "vllm and openai: requests at a time; of each server (vllm), within engine.batch_size (openai)", "requests"
    )
    retries: int = key(
        5,
        "vllm and openai: further attempts after a lost connection, a time-out, 408, 409, 425, 429, 5xx, or a 200 "
        "that holds an error or no completion, backing off",
        "attempts",
    )
    timeout_seconds: float = key(600.0, "vllm and openai: longest wait for one completion", "s")
    correction: OffPolicyCorrection = key(
        OffPolicyCorrection.token,
        "training: what the loss of a token is multiplied by, r = pi_old/mu of trainer and engine: token min(r, cap) | "
        "sequence min(product of r over the rollout, cap) | mask r, and 0 for a token whose r leaves [1/cap, cap] | "
        "none 1. Denominators stay (docs/off_policy.md)",
    )
    cap: float = key(2.0, "bound of the correction, more than 1")
    # A server of the OpenAI protocol.
    url: str | None = key(None, "engine=openai: address of the API, http://127.0.0.1:8000/v1")
    api_key_env: str | None = key(
        None, "engine=openai: name of the environment variable that holds the key; the key itself is never stored"
    )
    model: str | None = key(None, "engine=openai: the model's name on the server; null takes the only one it lists")
    max_tokens_key: MaxTokensKey = key(
        MaxTokensKey.max_tokens,
        "engine=openai: the name that the server takes benchmark.max_tokens by; newer ones want max_completion_tokens",
    )
    # Servers of vLLM: those that run already, or those that dgpo starts.
    urls: list[str] = key(
        [], "engine=vllm: addresses of servers that run already, [http://HOST:PORT,...]; empty: dgpo starts its own"
    )
    python: str | None = key(
        None,
        "engine=vllm: path of the interpreter that has vLLM; null takes this one if it has it, else that of "
        "tests/install_vllm.sh",
    )
    replicas: int = key(1, "engine=vllm: servers that dgpo starts; requests are dealt over them", "servers")
    tensor_parallel: int = key(1, "engine=vllm: devices that one server spreads the model over", "devices")
    devices: list[str] | None = key(
        None,
        "engine=vllm: ids of the GPUs of all servers together, engine.tensor_parallel for each in turn; null takes "
        "those after the trainer's own. On a CPU there are none",
    )
    colocated: bool = key(
        False,
        "engine=vllm, dgpo train: servers on the trainer's own GPUs, in turns with it: they sleep without weights and "
        "cache while it trains, and it gives back unused memory before they wake. Needs GPUs",
    )
    gpu_memory_fraction: float = key(
        0.9, "engine=vllm: share of a GPU's memory that a server takes for weights and cache; no effect on a CPU"
    )
    max_model_len: int | None = key(
        None,
        "engine=vllm: longest sequence, prompt and completion together; null is what the longest prompt and the limit "
        "of completions need",
        "tokens",
    )
    dtype: EngineDtype = key(
        EngineDtype.auto,
        "engine=vllm: dtype of the servers' weights and arithmetic: auto (the one that the trainer computes in) | "
        "float32 | bfloat16 | float16",
    )
    extra_args: list[str] = key([], "engine=vllm: words appended to a server's command line, as vLLM documents them")
    start_seconds: float = key(600.0, "engine=vllm: longest wait until a server has loaded its model and answers", "s")
    sync: Sync = key(
        Sync.files,
        "engine=vllm, dgpo train: how new weights reach the servers: files (in a folder that both see) | group "
        "(broadcast from the trainer's main process to the servers' workers)",
    )
    sync_folder: str | None = key(
        None,
        "engine.sync=files: the folder that trainer and servers both see; null is one in /dev/shm, if there is one, "
        "else in the temporary folder",
    )
