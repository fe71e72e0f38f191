"""Problems of a reward before anything starts: a grader's name, a function's file, a score for late calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.config.reward_names import names_of, unfit
from dgpo_cli.errors import Problem

GRADERS_ALONE = ("robust", "dapo", "exact", "answer_only")  # those that can stand in a list beside functions
EXAMPLE = "reward.path=my_reward.py:score"


def rewards(config: Any) -> Iterator[Problem]:
    """The grader of training, and that of a benchmark."""
    yield from _reward(config.reward, "reward.name")
    if not hasattr(config, "benchmark"):
        return
    given = config.benchmark.reward
    if given not in catalogue.options("reward"):
        yield Problem(f"benchmark.reward: there is no grader '{given}'", _reward_hint("benchmark.reward", given))
    elif isinstance(config, TrainConfig) and given == "function" and config.reward.name != given:
        yield from _functions(config.reward.path, "benchmark.reward=function")


def _reward(reward: RewardConfig, key: str) -> Iterator[Problem]:
    if reward.name not in catalogue.options("reward"):
        yield Problem(f"{key}: there is no grader '{reward.name}'", _reward_hint(key, reward.name))
        return
    if reward.name == "function":
        yield from _functions(reward.path, "reward=function")
        yield from _weights(reward)
    if reward.timeout_score is not None and reward.name != "function":
        message = f"reward.timeout_score: reward={reward.name} gives no scores; a grading that is late is wrong there"
        yield Problem(message, "algo.reward_wrong is what a wrong answer earns")
    elif reward.timeout_score is not None and not math.isfinite(reward.timeout_score):
        message = f"reward.timeout_score: expected a finite number, got {reward.timeout_score}"
        yield Problem(message, "null takes the least that the function has given so far")


def _functions(path: Any, needed_by: str) -> Iterator[Problem]:
    if path is None or path == []:
        yield Problem(f"reward.path: {needed_by} needs a file and a function", EXAMPLE)
        return
    if isinstance(path, str):
        yield from _function(path)
        return
    if not isinstance(path, list) or not all(isinstance(one, str) for one in path):
        shown = catalogue.show(path)
        yield Problem(f"reward.path: expected FILE.py:FUNCTION or a list of such, got {shown}", EXAMPLE)
        return
    for one in path:
        if one not in GRADERS_ALONE:
            yield from _function(one, several=True)
    wrong = unfit(names_of(path))
    if wrong:
        message = f"reward.path: '{wrong[0]}' cannot name a reward here: each is logged as reward/NAME, by its own name"
        yield Problem(message, "give the function another name")


def _function(path: str, *, several: bool = False) -> Iterator[Problem]:
    file, colon, function = path.rpartition(":")
    if not colon or not function.isidentifier():
        expected = "FILE.py:FUNCTION" + (f" or a grader ({', '.join(GRADERS_ALONE)})" if several else "")
        yield Problem(f"reward.path: expected {expected}, got '{path}'", EXAMPLE)
    elif not Path(file).expanduser().is_file():
        yield Problem(f"reward.path: no file '{file}'", "paths are relative to this folder")


def _weights(reward: RewardConfig) -> Iterator[Problem]:
    if reward.weights is None or not isinstance(reward.path, list):
        return
    weights, count = reward.weights, len(reward.path)
    if len(weights) != count:
        message = f"reward.weights: {len(weights)} for {count} rewards: {catalogue.show(weights)}"
        yield Problem(message, "one for each, in the order of reward.path")
    elif not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        message = f"reward.weights: expected numbers of at least 0, got {catalogue.show(weights)}"
        yield Problem(message, "let the function return its negative; with weight 0 a reward is only logged")


def _reward_hint(key: str, given: str) -> str:
    known = catalogue.options("reward")
    close = catalogue.nearest(given, known)
    return f"did you mean {key}={close}?" if close else " | ".join(known)
