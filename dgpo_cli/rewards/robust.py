r"""The default grader of mathematics: numbers in this process, everything else by shape and math-verify in workers.

A gold that is a number is compared exactly (`dgpo_cli.core.quantities`): no worker starts for AIME, AMC, GSM8K and
DAPO. An integer gold takes no algebra. Other golds are compared as text first, then part by part and symbolically,
behind guards and deadlines. A verdict is right, wrong, or an error with its cause, which scores as wrong and is
counted: no_answer, timeout, died, memory, too_long, too_complex, failed, bad_gold. docs/grading.md has the rules.
"""

from __future__ import annotations

import functools
import importlib.util
import os

from dgpo_cli.core.answers import integer_of, reduced_gold, unboxed, undecorated
from dgpo_cli.core.characters import plain_characters
from dgpo_cli.core.quantities import Quantity, quantity_of, same_quantity
from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.progress import each
from dgpo_cli.rewards.extraction import FinalAnswers, final_answers
from dgpo_cli.rewards.mathematics import LONGEST_ANSWER, guard, plain_form
from dgpo_cli.rewards.worker_pool import WorkerPool
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, GradeRequest, Verdict

MEMORY_BYTES = 2 << 30
MOST_WORKERS = 8


class RobustGrader:
    """See the module. `workers` processes at most; they start with the first gold that needs algebra."""

    name = "robust"
    rules = 2  # 1: numbers by rounding, bases dropped, sets for pairs

    def __init__(self, *, timeout_seconds: float, workers: int | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        self._workers = workers or min(MOST_WORKERS, os.cpu_count() or 1)
        self._pool: WorkerPool | None = None
        self._self_test(known="73", right=r"so $\boxed{073}$.", wrong=r"so $\boxed{74}$, not 73.")

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        """One verdict a request; equal pairs of gold and answer are compared once."""
        verdicts: list[Verdict | None] = []
        pending: dict[tuple[str, str], None] = {}
        pairs: list[tuple[str, str]] = []
        for request in each(requests):
            gold = _reduced(request.gold)
            found = final_answers(request.prompt, request.completion, truncated=request.truncated)
            verdict = _without_algebra(gold, found)
            pair = (gold, _readable(found.in_order[0]) if verdict is None else "")
            if verdict is None:
                pending[pair] = None
            verdicts.append(verdict)
            pairs.append(pair)
        compared = self._compare(list(pending))
        return [
            verdict if verdict is not None else compared[pair] for verdict, pair in zip(verdicts, pairs, strict=True)
        ]

    def columns_asked(self) -> ColumnsAsked:
        return NO_COLUMNS

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        """For each gold why it can never be matched, or None; symbolic ones are tried in parallel."""
        problems: list[str | None] = []
        asked: list[int] = []
        for index, gold in enumerate(each(golds)):
            text = _reduced(gold)
            number = quantity_of(text)
            cause = None if number else guard(text)
            problems.append("it is empty" if not text else f"it is {cause.replace('_', ' ')}" if cause else None)
            if text and number is None and cause is None:
                asked.append(index)
        if asked:
            replies = self._started_pool().run([{"gold": _reduced(golds[index])} for index in asked])
            for index, reply in zip(asked, replies, strict=True):
                if not reply.get("readable"):
                    problems[index] = f"math-verify cannot read it ({reply.get('error', 'no expression')})"
        return problems

    def check(self, sample: GradeRequest) -> Verdict:
        """Grade a sample; the self-tests ran when the grader and its workers started."""
        return self.grade([sample])[0]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _compare(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Verdict]:
        if not pairs:
            return {}
        replies = self._started_pool().run([{"gold": gold, "answer": answer} for gold, answer in pairs])
        verdicts = {}
        for pair, reply in zip(pairs, replies, strict=True):
            correct = bool(reply.get("correct"))
            # Right answers are recorded as the gold: they vote together in maj@k.
            verdicts[pair] = Verdict(
                float(correct), correct, _vote(pair[0] if correct else pair[1]), reply.get("error")
            )
        return verdicts

    def _started_pool(self) -> WorkerPool:
        if self._pool is None:
            if importlib.util.find_spec("math_verify") is None:
                raise ConfigError(
                    "reward=robust: golds that need algebra are compared by math-verify, which is not installed",
                    "pip install 'dgpo[math]'",
                )
            self._pool = WorkerPool(
                "mathematics",
                "",
                size=self._workers,
                timeout_seconds=self._timeout_seconds,
                memory_bytes=MEMORY_BYTES,
                cpu_seconds=int(self._timeout_seconds) + 5,
            )
            self._self_test(known=r"\sqrt{2}", right=r"so $\boxed{\frac{2}{\sqrt{2}}}$", wrong=r"so $\boxed{\sqrt{3}}$")
        return self._pool

    def _self_test(self, *, known: str, right: str, wrong: str) -> None:
        verdicts = self.grade([GradeRequest("", right, known), GradeRequest("", wrong, known)])
        if [verdict.correct for verdict in verdicts] != [True, False] or any(verdict.error for verdict in verdicts):
            raise RewardError(
                f"reward=robust: the self-test failed: {right!r} and {wrong!r} against {known!r} gave {verdicts}",
                "reinstall math-verify 0.9.0 (pip install 'dgpo[math]'), or raise reward.timeout_seconds",
            )


@functools.lru_cache(maxsize=65536)
def _reduced(gold: str) -> str:
    return reduced_gold(gold)


def _without_algebra(gold: str, found: FinalAnswers) -> Verdict | None:
    """The verdict if no algebra is needed: no answer, two numbers, equal text, or a guard's refusal."""
    candidates = found.in_order
    if not candidates:
        return Verdict(0.0, False, None, "no_answer")
    number = quantity_of(gold)
    if number is not None:
        verdict = _verdict_of_numbers(number, found)
        if verdict is not None:
            return verdict
        if integer_of(gold, as_gold=True) is not None:
            return Verdict(0.0, False, candidates[0][:LONGEST_ANSWER])
    if len(candidates[0]) > LONGEST_ANSWER:  # before anything else reads it
        return Verdict(0.0, False, candidates[0][:LONGEST_ANSWER], "too_long")
    answer = _readable(candidates[0])
    if not answer:
        return Verdict(0.0, False, None, "no_answer")
    if plain_form(answer) == plain_form(undecorated(gold)):
        return Verdict(1.0, True, _vote(gold))
    cause = "bad_gold" if number is None and guard(gold) else guard(answer)
    return None if cause is None else Verdict(0.0, False, answer, cause)


def _verdict_of_numbers(gold: Quantity, found: FinalAnswers) -> Verdict | None:
    """By the first candidate that is a number: any box, or an `Answer:` line; None if none of them is."""
    for candidate in found.in_order:
        answer = quantity_of(_unboxed(candidate), sums_of_names=True)
        if answer is not None:
            correct = same_quantity(gold, answer)
            return Verdict(float(correct), correct, str(gold if correct else answer))
        if candidate is found.box:
            return None
    return None


def _unboxed(candidate: str) -> str:
    return candidate if len(candidate) > LONGEST_ANSWER else unboxed(candidate)


def _readable(candidate: str) -> str:
    return undecorated(plain_characters(_unboxed(candidate)))


def _vote(answer: str) -> str:
    """The same text for every way to write a number."""
    number = quantity_of(answer)
    return answer if number is None else str(number)
