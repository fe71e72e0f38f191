"""What a completion earns: graders, and functions of the user's own.

`requests` makes a request of each completion, `make_grader` below makes the grader, and its `grade` gives one verdict a
request:

    strings     exact, answer_only: equal texts
    dapo        the rule that DAPO was released with
    robust      mathematics, the default: `extraction` finds the answer, then numbers are compared in this process, and
                everything else by `structure` (shapes), `mathematics` and `values` (algebra) in grading processes
    function    a function of the user's own: `arguments` (what it is called with), `user_function` (what it may
                return), `late_calls` (what a call past its deadline scores)

`worker_pool` starts and ends grading processes, and `worker` is their program. `trial` tries a grader before anything
starts.
"""

from __future__ import annotations

import difflib

from dgpo_cli.errors import ConfigError
from dgpo_cli.types import Grader

GRADERS = ("exact", "answer_only", "robust", "dapo", "function")
READS_MATHEMATICS = frozenset({"robust", "dapo"})  # the others compare golds as they stand: load them unreduced


def make_grader(
    name: str,
    *,
    path: str | None,
    timeout_seconds: float,
    timeout_score: float | None = None,
    workers: int | None = None,
) -> Grader:
    """The grader of this name.

    path (file.py:function), timeout_score: of a user's function. workers: of graders with processes of their own.

    Raises ConfigError for a name or path that cannot be used, RewardError if a self-test fails.
    """
    if name == "function":
        if path is None:
            raise ConfigError("reward=function: expected reward.path=file.py:function, got none")
        from dgpo_cli.rewards.function import FunctionGrader

        return FunctionGrader(path, timeout_seconds=timeout_seconds, timeout_score=timeout_score, workers=workers or 1)
    if name == "robust":
        from dgpo_cli.rewards.robust import RobustGrader

        return RobustGrader(timeout_seconds=timeout_seconds, workers=workers)
    if name == "dapo":
        from dgpo_cli.rewards.dapo import DapoGrader

        return DapoGrader()
    if name in ("exact", "answer_only"):
        from dgpo_cli.rewards.strings import AnswerOnlyGrader, ExactGrader

        return ExactGrader() if name == "exact" else AnswerOnlyGrader()
    close = difflib.get_close_matches(name, GRADERS, n=1)
    raise ConfigError(f"reward.name: expected {' | '.join(GRADERS)}, got {name}", f"reward={close[0]}" if close else "")
