"""The grader `function`: a reward function of the user's own, `reward.path=file.py:function`.

`arguments` decides its arguments, `user_function` reads its return value, `late_calls` scores a call past its
deadline. A call that raises, dies or returns something else stops the run and shows the prompt and the
completion: a broken function never scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.rewards.arguments import Arguments, Parameter, arguments_for, by_prompt
from dgpo_cli.rewards.late_calls import late_score, with_scores
from dgpo_cli.rewards.worker_pool import WorkerPool, usable_cores
from dgpo_cli.types import ColumnsAsked, GradeRequest, ScoresGiven, Verdict

SHAPE = (
    "called as function(prompt, completion, answer), it returns a float, true or false, (float, correct) or a dict "
    "with score, correct and named parts; one that names completions gets lists and returns a list of these "
    "(dgpo help reward.path)"
)
TEXT_NOT_TURNS = (
    "the prompts of the data are text, so completions are texts too; a function that reads completion[0]['content'] "
    "wants prompts that are lists of messages"
)
INDEXED_TEXT = "TypeError: string indices must be integers"
LONGEST_SHOWN = 300
TIMEOUT = "timeout"
NO_SCORE = "no_score"  # the error of a completion for which a batch function returned None


class FunctionGrader:
    """Grades with one function of one file; `workers` calls run at a time, by default as many as there are cores.

    `given` changes with each `grade`: a run that goes on sets what it was before. If `failures` is a list, calls that
    raise, die or return no reward are noted there and scored 0 with the error `failed`, in place of a RewardError.
    """

    name = "function"

    def __init__(
        self, path: str, *, timeout_seconds: float, timeout_score: float | None = None, workers: int | None = None
    ) -> None:
        file, colon, function = path.rpartition(":")
        if not colon or not function.isidentifier():
            raise ConfigError(f"reward.path={path}: expected file.py:function", "reward.path=my_reward.py:score")
        if not Path(file).expanduser().is_file():
            raise ConfigError(f"reward.path={path}: there is no file {file}", SHAPE)
        self._path = f"{Path(file).expanduser().resolve()}:{function}"
        self.shown = path
        self.failures: list[str] | None = None
        self._timeout_seconds = timeout_seconds
        self._timeout_score = timeout_score
        self._trial: float | None = None
        self._arguments: Arguments | None = None
        self.given = ScoresGiven()
        size = workers or usable_cores()
        self._pool = WorkerPool("function", self._path, size=size, timeout_seconds=timeout_seconds)

    def columns_asked(self) -> ColumnsAsked:
        """Those that its parameters name. Starts a process: only there the user's file is run."""
        try:
            return self._called_with().columns
        except RewardError as error:
            raise self._named(error) from error

    def check(self, sample: GradeRequest) -> Verdict:
        """One call at the start. Raises RewardError if it raises, is late or returns no reward."""
        reply = self._replies([sample])[0]
        if _unscored(reply) == TIMEOUT:
            raise RewardError(
                f"{self.shown}: not back within {self._timeout_seconds:g} s on a sample, {_shown(sample)}",
                "make it faster, or raise reward.timeout_seconds",
            )
        if _unscored(reply) == NO_SCORE:
            return Verdict(0.0, None, None, NO_SCORE)
        verdict = self._verdict(sample, reply)
        self._trial = verdict.score
        self.given = replace(self.given, says_right=self.given.says_right or verdict.correct is not None)
        return verdict

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        """One verdict a request. A late call, and a None of a batch function (`no_score`), score by `late_calls`."""
        replies = self._replies(requests)
        scored = [
            self._verdict_or_failure(request, reply) if _unscored(reply) is None else None
            for request, reply in zip(requests, replies, strict=True)
        ]
        self.given = with_scores(self.given, [verdict for verdict in scored if verdict is not None], self._trial)
        least, correct = late_score(self.given, self._trial), False if self.given.says_right else None
        without = {
            TIMEOUT: Verdict(least if self._timeout_score is None else self._timeout_score, correct, None, TIMEOUT),
            NO_SCORE: Verdict(least, correct, None, NO_SCORE),
        }
        return [
            without[str(_unscored(reply))] if verdict is None else verdict
            for verdict, reply in zip(scored, replies, strict=True)
        ]

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        return [None] * len(golds)  # what a gold means is the function's business

    @property
    def call_seconds(self) -> Sequence[float]:
        """How long the latest calls took, each with the way to its process and back."""
        return self._pool.seconds

    def close(self) -> None:
        self._pool.close()

    def _called_with(self) -> Arguments:
        if self._arguments is None:
            parameters = self._pool.greeting()["parameters"]
            self._arguments = arguments_for(None if parameters is None else [Parameter(*one) for one in parameters])
        return self._arguments

    def _replies(self, requests: list[GradeRequest]) -> list[dict[str, Any]]:
        if not requests:
            return []
        try:
            arguments = self._called_with()
            if not arguments.batch:
                return self._pool.run([arguments.of(request) for request in requests])
            batches = by_prompt(requests)
            sent, sizes = [arguments.of_batch(batch) for batch in batches], [len(batch) for batch in batches]
            replies = zip(self._pool.run(sent, sizes), sizes, strict=True)
            return [one for reply, size in replies for one in reply.get("replies", [reply] * size)]
        except RewardError as error:
            raise self._named(error) from error

    def _named(self, error: RewardError) -> RewardError:
        return RewardError(f"{self.shown}: {error}", SHAPE)

    def _verdict_or_failure(self, request: GradeRequest, reply: dict[str, Any]) -> Verdict:
        try:
            return self._verdict(request, reply)
        except RewardError as error:
            if self.failures is None:
                raise
            self.failures.append(str(error))
            return Verdict(0.0, None, None, "failed")

    def _verdict(self, request: GradeRequest, reply: dict[str, Any]) -> Verdict:
        if "score" in reply:
            return Verdict(reply["score"], reply["correct"], parts=reply.get("parts"))
        if "raised" in reply:
            hint = TEXT_NOT_TURNS if reply["raised"].startswith(INDEXED_TEXT) and not request.chat else SHAPE
            raise RewardError(f"{self.shown}: raised {reply['raised']}, for {_shown(request)}", hint)
        if "invalid" in reply:
            raise RewardError(f"{self.shown}: returned {reply['invalid']}, for {_shown(request)}", SHAPE)
        raise RewardError(f"{self.shown}: its process died, for {_shown(request)}", SHAPE)


def _unscored(reply: dict[str, Any]) -> str | None:
    """Why there is no score, if that is no fault of the function."""
    if reply.get("error") == TIMEOUT:
        return TIMEOUT
    return NO_SCORE if "score" in reply and reply["score"] is None else None


def _shown(request: GradeRequest) -> str:
    return f"prompt {_clipped(request.prompt)} and completion {_clipped(request.completion)}"


def _clipped(text: str) -> str:
    if len(text) <= LONGEST_SHOWN:
        return repr(text)
    half = LONGEST_SHOWN // 2
    return f"{text[:half]!r} ... {text[-half:]!r} ({len(text)} characters)"
