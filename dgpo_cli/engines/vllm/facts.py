"""What servers of vLLM say of themselves, and whether dgpo knows how to talk to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dgpo_cli.engines.http import HttpClient
from dgpo_cli.engines.vllm.client import ADDRESS_HINT, DEV_HINT, FIRST_WEIGHTS
from dgpo_cli.engines.vllm.interpreter import TESTED, is_tested
from dgpo_cli.errors import RunError

OURS = "engine.urls names servers of vLLM, http://HOST:PORT, without /v1"
PATIENCE = 60.0  # seconds


def server_facts(
    urls: Sequence[str], longest: int, *, timeout_seconds: float, keep_weights: bool = False
) -> dict[str, Any]:
    """Version and longest sequence, which are the same for all servers.

    keep_weights: they have to hold those that they were started with, for nobody replaces them here.

    Raises:
        RunError: one cannot be reached, is not of a tested version, takes shorter sequences than `longest`, holds other
            weights by now, or is not like the first.
    """
    told = [_facts(url, longest, min(timeout_seconds, PATIENCE), keep_weights) for url in urls]
    for url, one in zip(urls[1:], told[1:], strict=True):
        if one != told[0]:
            raise RunError(
                f"{url} is {_words(one)}, and {urls[0]} {_words(told[0])}", "servers that draw together are alike"
            )
    return told[0]


def refuse_other_settings(url: str, wanted: Mapping[tuple[str, str], Sequence[str]], *, timeout_seconds: float) -> None:
    """Hold a server's own configuration to `wanted`: a section and a name of vLLM's, and the values that will do.

    Raises:
        RunError: it is set otherwise; one line names the first such setting.
    """
    http = HttpClient(url, retries=2, timeout_seconds=min(timeout_seconds, PATIENCE), absent_hint=ADDRESS_HINT)
    config = _field(http, "/server_info?config_format=json", "vllm_config", DEV_HINT)
    for (section, name), values in wanted.items():
        found = config.get(section, {}).get(name) if isinstance(config, dict) else None
        if str(found) not in values:
            option = f"--{name.replace('_', '-')}"
            shown = values[0].removeprefix("torch.")
            raise RunError(
                f"{url}: the server was started with {option} {str(found).removeprefix('torch.')}, and {shown} is "
                "needed here",
                f"start it with {option} {shown}; docs/engines.md has the whole command",
            )


def longest_sequence(url: str, *, timeout_seconds: float) -> int:
    """Tokens of the longest sequence that a server takes, prompt and completion together.

    Raises:
        ServerError: it cannot be reached.
        RunError: it does not say.
    """
    http = HttpClient(url, retries=2, timeout_seconds=min(timeout_seconds, PATIENCE), absent_hint=ADDRESS_HINT)
    return _longest(http)


def _longest(http: HttpClient) -> int:
    models = _field(http, "/v1/models", "data", OURS)
    length = models[0].get("max_model_len") if models and isinstance(models[0], dict) else None
    if not isinstance(length, int):
        raise RunError(f"{http.url}: /v1/models says no max_model_len", OURS)
    return length


def _facts(url: str, longest: int, timeout_seconds: float, keep_weights: bool) -> dict[str, Any]:
    http = HttpClient(url, retries=2, timeout_seconds=timeout_seconds, absent_hint=ADDRESS_HINT)
    version = str(_field(http, "/version", "version", OURS))
    if not is_tested(version):
        raise RunError(
            f"{url}: vLLM {version} was never tested with dgpo, and its endpoints for weights change between releases",
            f"pip install 'vllm=={TESTED[-1]}*'",
        )
    length = _longest(http)
    if length < longest:
        raise RunError(
            f"{url}: sequences need up to {longest} tokens here, and the server takes {length}",
            f"start it with --max-model-len {longest}, or ask for shorter completions",
        )
    weights = _field(http, "/weight_info", "weight_version", DEV_HINT)
    if keep_weights and weights != FIRST_WEIGHTS:
        raise RunError(
            f"{url}: the server holds the weights of step {weights} of a training, and no more those of its model",
            "start it anew",
        )
    return {"vllm": version, "max_model_len": length}


def _words(facts: dict[str, Any]) -> str:
    return f"vLLM {facts['vllm']} for {facts['max_model_len']} tokens"


def _field(http: HttpClient, path: str, name: str, hint: str) -> Any:
    answer = http.send(path, first=True)
    record = answer.json() if answer.is_good else None
    if not isinstance(record, dict) or name not in record:
        raise RunError(f"{http.url}: {path} says no {name} (status {answer.status})", hint)
    return record[name]
