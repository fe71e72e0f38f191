"""What a command does first, in a few words: said within a second, before torch is imported."""

from __future__ import annotations

from typing import Any

from dgpo_cli.errors import DataError
from dgpo_cli.hub_access import ANSWER_SECONDS, hub_address, hub_answers, is_cached, is_on_the_hub


def beginning(command: str, configs: list[Any]) -> str:
    """`loading tiny`, or `fetching Qwen/Qwen2.5-0.5B` if the hub's cache does not hold it."""
    config = configs[0]
    if command == "compare":
        return f"reading {', '.join(config.runs)}"
    if command == "rollout" and (config.rollouts or config.grade):
        return f"reading {config.rollouts or config.grade}"
    if command == "eval" and config.benchmark.completions:
        return f"grading {config.benchmark.completions}"
    if command == "eval" and config.engine.name == "openai":
        return f"asking {config.engine.url}"
    path = str(config.model.path)
    if is_on_the_hub(path) and not is_cached(path):
        return f"fetching {path}"
    return f"loading {config.model.name if config.model.name != 'path' else path}"


def refuse_without_the_hub(command: str, configs: list[Any]) -> None:
    """Raises DataError if a model has to be fetched and the hub does not answer: before torch is imported."""
    model = getattr(configs[0], "model", None)
    if model is not None and beginning(command, configs) == f"fetching {model.path}" and not hub_answers():
        message = f"model.path: {model.path} is not here, and the hub gave no answer in {ANSWER_SECONDS:g} s"
        raise DataError(
            f"{message} ({hub_address()})", "model.path=FOLDER with a downloaded model, or check the network"
        )
