"""A grader's trial before anything starts: what fails here is a matter of configuration."""

from __future__ import annotations

from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.types import Grader, GradeRequest, Prompt, Verdict


def try_grader(grader: Grader, prompt: Prompt) -> Verdict:
    """Grade the first prompt's gold as if it were a completion.

    Raises:
        ConfigError: a function that cannot be called, raises, is late or returns no reward.
    """
    try:
        return grader.check(GradeRequest(prompt.text, prompt.problem.gold, prompt.problem.gold))
    except RewardError as error:
        raise ConfigError("", problems=error.problems) from error


def require_right_or_wrong(sample: Verdict, reward: RewardConfig, by: str, otherwise: str) -> None:
    """`by`: what goes by right and wrong; `otherwise`: what to do where the reward does not say it.

    Raises:
        ConfigError: the verdict on a sample is a number alone.
    """
    if sample.correct is None and sample.error is None:
        raise ConfigError(
            f"{by} goes by right and wrong, and {reward.path or reward.name} gives a number alone",
            f"return (score, correct) from it, or {otherwise}",
        )
