"""What a completion earns: graders, and functions of the user's own.

`requests` makes a request of each completion, `make_grader` below makes the grader, and its `grade` gives one verdict a
request:

    strings     exact, answer_only: equal texts
    dapo        the rule that DAPO was released with
    robust      mathematics, the default: `extraction` finds the answer, then numbers are compared in this process, and
                everything else by `structure` (shapes), `mathematics` and `values` (algebra) in grading processes
    function    a function of the user's own: `arguments` (what it is called with), `user_function` (what it may
                return), `late_calls` (what a call past its deadline scores)

    several     a weighted sum of these: `reward.path=[robust,style.py:brief]`

`worker_pool` starts and ends grading processes, and `worker` is their program. `trial` tries a grader before anything
starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dgpo_cli.config.reward_names import names_of
from dgpo_cli.errors import ConfigError

if TYPE_CHECKING:  # each grading process imports this file
    from dgpo_cli.config.groups import RewardConfig
    from dgpo_cli.types import Grader

GRADERS = ("exact", "answer_only", "robust", "dapo", "function")
READS_MATHEMATICS = frozenset({"robust", "dapo"})  # the others compare golds as they stand: load them unreduced


def load_grader(settings: RewardConfig) -> Grader:
    """The grader that a configuration names. Raises as `make_grader`."""
    path = settings.path
    return make_grader(
        settings.name,
        path=[str(one) for one in path] if isinstance(path, list) else path,
        timeout_seconds=settings.timeout_seconds,
        timeout_score=settings.timeout_score,
        workers=settings.workers,
        weights=settings.weights,
    )


def make_grader(
    name: str,
    *,
    path: str | Sequence[str] | None,
    timeout_seconds: float,
    timeout_score: float | None = None,
    workers: int | None = None,
    weights: Sequence[float] | None = None,
) -> Grader:
    """The grader of this name.

    path (file.py:function, or a list of them and of names of graders), timeout_score: of a user's functions.
    workers: of graders with processes of their own. weights: of several rewards; 1 each if they are not given.

    Raises ConfigError for a name or path that cannot be used, RewardError if a self-test fails.
    """
    if name == "function":
        if not path:
            raise ConfigError("reward=function: expected reward.path=file.py:function, got none")
        from dgpo_cli.rewards.function import FunctionGrader

        if not isinstance(path, str):
            return _several(path, weights, timeout_seconds, timeout_score, workers)
        return FunctionGrader(path, timeout_seconds=timeout_seconds, timeout_score=timeout_score, workers=workers)
    if name == "robust":
        from dgpo_cli.rewards.robust import RobustGrader

        return RobustGrader(timeout_seconds=timeout_seconds, workers=workers)
    if name == "dapo":
        from dgpo_cli.rewards.dapo import DapoGrader

        return DapoGrader()
    if name in ("exact", "answer_only"):
        from dgpo_cli.rewards.strings import AnswerOnlyGrader, ExactGrader

        return ExactGrader() if name == "exact" else AnswerOnlyGrader()
    import difflib

    close = difflib.get_close_matches(name, GRADERS, n=1)
    raise ConfigError(f"reward.name: expected {' | '.join(GRADERS)}, got {name}", f"reward={close[0]}" if close else "")


def _several(
    paths: Sequence[str],
    weights: Sequence[float] | None,
    timeout_seconds: float,
    timeout_score: float | None,
    workers: int | None,
) -> Grader:
    from dgpo_cli.rewards.several import SeveralGrader, Weighted

    weights = [1.0] * len(paths) if weights is None else weights
    made = []
    for path, name, weight in zip(paths, names_of(paths), weights, strict=True):
        kind = "function" if ":" in path else path
        grader = make_grader(
            kind, path=path, timeout_seconds=timeout_seconds, timeout_score=timeout_score, workers=workers
        )
        made.append(Weighted(name, weight, grader, reads_mathematics=kind in READS_MATHEMATICS))
    return SeveralGrader(made)
