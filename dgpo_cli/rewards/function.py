"""A reward function of the user's own, `reward.path=file.py:function`, run in a process with a deadline.

It is called as function(prompt, completion, answer) and returns a float, or (float, correct). A call that raises, or
returns
something else, stops the run and shows the prompt and completion: a broken function never scores 0. A call past its
deadline is killed, scores 0 as wrong, and is counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.rewards.workers import WorkerPool
from dgpo_cli.types import GradeRequest, Verdict

SHAPE = "called as function(prompt, completion, answer), it returns a float or (float, correct)"
LONGEST_SHOWN = 300


class FunctionGrader:
    """Grades with one function of one file; `workers` calls run at a time."""

    name = "function"

    def __init__(self, path: str, *, timeout_seconds: float, workers: int = 1) -> None:
        file, colon, function = path.rpartition(":")
        if not colon or not function.isidentifier():
            raise ConfigError(f"reward.path={path}: expected file.py:function", "reward.path=my_reward.py:score")
        if not Path(file).expanduser().is_file():
            raise ConfigError(f"reward.path={path}: there is no file {file}", SHAPE)
        self._path = f"{Path(file).expanduser().resolve()}:{function}"
        self._shown = path
        self._timeout_seconds = timeout_seconds
        self._gives_correct = False
        self._pool = WorkerPool("function", self._path, size=workers, timeout_seconds=timeout_seconds)

    def check(self, sample: GradeRequest) -> None:
        """One call at the start. Raises RewardError where it raises, is late or returns no reward."""
        reply = self._replies([sample])[0]
        if reply.get("error") == "timeout":
            raise RewardError(
                f"{self._shown}: not back within {self._timeout_seconds:g} s on a sample, {_shown(sample)}",
                "make it faster, or raise reward.timeout_seconds",
            )
        self._verdict(sample, reply)

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        replies = self._replies(requests)
        return [self._verdict(request, reply) for request, reply in zip(requests, replies, strict=True)]

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
        if reply.get("error") == "timeout":
            return Verdict(0.0, False if self._gives_correct else None, None, "timeout")
        if "score" in reply:
            self._gives_correct = reply["correct"] is not None
            return Verdict(reply["score"], reply["correct"])
        if "raised" in reply:
            raise RewardError(f"{self._shown}: raised {reply['raised']}, for {_shown(request)}", SHAPE)
        if "invalid" in reply:
            raise RewardError(f"{self._shown}: returned {reply['invalid']}, for {_shown(request)}", SHAPE)
        raise RewardError(f"{self._shown}: its process died, for {_shown(request)}", SHAPE)


def _shown(request: GradeRequest) -> str:
    return f"prompt {_clipped(request.prompt)} and completion {_clipped(request.completion)}"


def _clipped(text: str) -> str:
    if len(text) <= LONGEST_SHOWN:
        return repr(text)
    half = LONGEST_SHOWN // 2
    return f"{text[:half]!r} ... {text[-half:]!r} ({len(text)} characters)"
