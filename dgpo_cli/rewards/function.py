"""A reward function of the user's own, `reward.path=file.py:function`, run in a process with a deadline.

It is called as function(prompt, completion, answer) and returns a float, or (float, correct). A call that raises, dies
or returns something else stops the run and shows the prompt and completion: a broken function never scores 0.

A call past its deadline is killed, counted, and wrong. So that hanging never pays, it scores `timeout_score`, or else
the least that the function has given to a completion so far, those that are graded together with it included: their
order does not matter. As long as that may be what a right answer gets (none was called wrong, and no two scores
differ), it scores no more than 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.rewards.workers import WorkerPool
from dgpo_cli.types import GradeRequest, ScoresGiven, Verdict

SHAPE = "called as function(prompt, completion, answer), it returns a float or (float, correct)"
LONGEST_SHOWN = 300
EQUAL_SCORES = 1e-8  # as the rewards of a group are equal in core.advantages, which would import torch


class FunctionGrader:
    """Grades with one function of one file; `workers` calls run at a time.

    `given` changes with each `grade`: a run that goes on sets what it was before.
    """

    name = "function"

    def __init__(
        self, path: str, *, timeout_seconds: float, timeout_score: float | None = None, workers: int = 1
    ) -> None:
        file, colon, function = path.rpartition(":")
        if not colon or not function.isidentifier():
            raise ConfigError(f"reward.path={path}: expected file.py:function", "reward.path=my_reward.py:score")
        if not Path(file).expanduser().is_file():
            raise ConfigError(f"reward.path={path}: there is no file {file}", SHAPE)
        self._path = f"{Path(file).expanduser().resolve()}:{function}"
        self._shown = path
        self._timeout_seconds = timeout_seconds
        self._timeout_score = timeout_score
        self._trial: float | None = None
        self.given = ScoresGiven()
        self._pool = WorkerPool("function", self._path, size=workers, timeout_seconds=timeout_seconds)

    def check(self, sample: GradeRequest) -> Verdict:
        """One call at the start. Raises RewardError where it raises, is late or returns no reward."""
        reply = self._replies([sample])[0]
        if reply.get("error") == "timeout":
            raise RewardError(
                f"{self._shown}: not back within {self._timeout_seconds:g} s on a sample, {_shown(sample)}",
                "make it faster, or raise reward.timeout_seconds",
            )
        verdict = self._verdict(sample, reply)
        self._trial = verdict.score
        self.given = replace(self.given, says_right=self.given.says_right or verdict.correct is not None)
        return verdict

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        in_time = [
            None if reply.get("error") == "timeout" else self._verdict(request, reply)
            for request, reply in zip(requests, self._replies(requests), strict=True)
        ]
        self.given = with_scores(self.given, [verdict for verdict in in_time if verdict is not None], self._trial)
        score = late_score(self.given, self._trial) if self._timeout_score is None else self._timeout_score
        late = Verdict(score, False if self.given.says_right else None, None, "timeout")
        return [late if verdict is None else verdict for verdict in in_time]

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        return [None] * len(golds)  # what a gold means is the function's business

    def close(self) -> None:
        self._pool.close()

    def _replies(self, requests: list[GradeRequest]) -> list[dict[str, Any]]:
        try:
            return self._pool.run(
                [{"prompt": one.prompt, "completion": one.completion, "answer": one.gold} for one in requests]
            )
        except RewardError as error:
            raise RewardError(f"{self._shown}: {error}", SHAPE) from error

    def _verdict(self, request: GradeRequest, reply: dict[str, Any]) -> Verdict:
        if "score" in reply:
            return Verdict(reply["score"], reply["correct"])
        if "raised" in reply:
            raise RewardError(f"{self._shown}: raised {reply['raised']}, for {_shown(request)}", SHAPE)
        if "invalid" in reply:
            raise RewardError(f"{self._shown}: returned {reply['invalid']}, for {_shown(request)}", SHAPE)
        raise RewardError(f"{self._shown}: its process died, for {_shown(request)}", SHAPE)


def with_scores(given: ScoresGiven, verdicts: Sequence[Verdict], trial: float | None) -> ScoresGiven:
    """`given` after further verdicts, in whatever order they came. trial: the score of the sample at the start."""
    if not verdicts:
        return given
    scores = [verdict.score for verdict in verdicts] + ([] if given.least is None else [given.least])
    highest = max(scores if trial is None else [*scores, trial])
    wrong = any(verdict.correct is False for verdict in verdicts)
    unsaid = any(verdict.correct is None for verdict in verdicts)
    return ScoresGiven(
        least=min(scores),
        has_worse=given.has_worse or wrong or (unsaid and highest - min(scores) > EQUAL_SCORES),
        says_right=given.says_right or any(verdict.correct is not None for verdict in verdicts),
    )


def late_score(given: ScoresGiven, trial: float | None) -> float:
    """What a call past its deadline scores: see the module. trial: the score of the sample at the start."""
    if given.has_worse and given.least is not None:
        return given.least
    return min(0.0, *(score for score in (given.least, trial, 0.0) if score is not None))


def _shown(request: GradeRequest) -> str:
    return f"prompt {_clipped(request.prompt)} and completion {_clipped(request.completion)}"


def _clipped(text: str) -> str:
    if len(text) <= LONGEST_SHOWN:
        return repr(text)
    half = LONGEST_SHOWN // 2
    return f"{text[:half]!r} ... {text[-half:]!r} ({len(text)} characters)"
