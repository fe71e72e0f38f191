"""A grader's trial before anything starts: what fails here is a matter of configuration."""

from __future__ import annotations

from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.config.reward_names import paths_of
from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.rewards.requests import of_completion
from dgpo_cli.types import ColumnsAsked, Grader, Prompt, Verdict


def columns_asked(grader: Grader) -> ColumnsAsked:
    """What is to be kept of the data's rows for a grader.

    Raises:
        ConfigError: a function that cannot be loaded.
    """
    try:
        return grader.columns_asked()
    except RewardError as error:
        raise ConfigError("", problems=error.problems) from error


def try_grader(grader: Grader, prompt: Prompt) -> Verdict:
    """Grade the first prompt's gold as if it were a completion.

    Raises:
        ConfigError: a function that cannot be called, raises, is late or returns no reward.
    """
    gold = prompt.problem.gold
    # A number of tokens is known only of what a model drew: words stand in for them, so that lengths can be rewarded.
    words = max(1, len(gold.split()))
    request = of_completion(prompt, gold, completion_tokens=words, token_ids=tuple(range(words)))
    try:
        return grader.check(request)
    except RewardError as error:
        raise ConfigError("", problems=error.problems) from error


def require_right_or_wrong(sample: Verdict, reward: RewardConfig, by: str, otherwise: str) -> None:
    """`by`: what goes by right and wrong; `otherwise`: what to do if the reward does not say it.

    Raises:
        ConfigError: the verdict on a sample is a number alone.
    """
    if sample.correct is None and sample.error is None:
        graders = " + ".join(paths_of(reward.path)) or reward.name
        raise ConfigError(
            f"{by} goes by right and wrong, and {graders} gives a number alone",
            f"return (score, correct) from it, or {otherwise}",
        )
