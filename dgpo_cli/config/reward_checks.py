"""Problems of a reward before anything starts: a grader's name, a function's file, a score for late calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.errors import Problem


def rewards(config: Any) -> Iterator[Problem]:
    """The grader of training, and that of a benchmark."""
    yield from _reward(config.reward, "reward.name")
    if not hasattr(config, "benchmark"):
        return
    given = config.benchmark.reward
    if given not in catalogue.options("reward"):
        yield Problem(f"benchmark.reward: there is no grader '{given}'", _reward_hint("benchmark.reward", given))
    elif isinstance(config, TrainConfig) and given == "function" and config.reward.name != given:
        yield from _function(config.reward.path, "benchmark.reward=function")


def _reward(reward: RewardConfig, key: str) -> Iterator[Problem]:
    if reward.name not in catalogue.options("reward"):
        yield Problem(f"{key}: there is no grader '{reward.name}'", _reward_hint(key, reward.name))
        return
    if reward.name == "function":
        yield from _function(reward.path, "reward=function")
    if reward.timeout_score is not None and reward.name != "function":
        message = f"reward.timeout_score: reward={reward.name} gives no scores; a grading that is late is wrong there"
        yield Problem(message, "algo.reward_wrong is what a wrong answer earns")
    elif reward.timeout_score is not None and not math.isfinite(reward.timeout_score):
        message = f"reward.timeout_score: expected a finite number, got {reward.timeout_score}"
        yield Problem(message, "null takes the least that the function has given so far")


def _function(path: str | None, needed_by: str) -> Iterator[Problem]:
    file, colon, function = (path or "").rpartition(":")
    example = "reward.path=my_reward.py:score"
    if not path:
        yield Problem(f"reward.path: {needed_by} needs a file and a function", example)
    elif not colon or not function.isidentifier():
        yield Problem(f"reward.path: expected FILE.py:FUNCTION, got '{path}'", example)
    elif not Path(file).is_file():
        yield Problem(f"reward.path: no file '{file}'", "paths are relative to this folder")


def _reward_hint(key: str, given: str) -> str:
    known = catalogue.options("reward")
    close = catalogue.nearest(given, known)
    return f"did you mean {key}={close}?" if close else " | ".join(known)
