"""A grader's trial before anything starts: what fails here is a matter of configuration."""

from __future__ import annotations

from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.types import Grader, GradeRequest, Prompt


def try_grader(grader: Grader, prompt: Prompt) -> None:
    """Grade the first prompt's gold as if it were a completion.

    Raises:
        ConfigError: a function that cannot be called, raises, is late or returns no reward.
    """
    try:
        grader.check(GradeRequest(prompt.text, prompt.problem.gold, prompt.problem.gold))
    except RewardError as error:
        raise ConfigError("", problems=error.problems) from error
