"""Adversarial completions in one run: nothing hangs, nothing is paid, ordinary ones keep their verdicts."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from rewards.adversarial_completions import COMPLETIONS, EXPRESSION_GOLD, INTEGER_GOLD

from dgpo_cli.rewards.extraction import final_answers
from dgpo_cli.rewards.robust import RobustGrader
from dgpo_cli.types import GradeRequest

TIMEOUT_SECONDS = 1.0
RESTART_SECONDS = 10.0  # of one worker, on a busy machine
ORDINARY = [(r"\boxed{\sqrt{8}}", r"2\sqrt{2}", True), (r"\boxed{\sqrt{7}}", r"2\sqrt{2}", False)]


def test_there_are_sixty_of_them() -> None:
    assert len(COMPLETIONS) >= 60


def test_integer_golds_are_graded_at_once_and_never_paid() -> None:
    grader = RobustGrader(timeout_seconds=TIMEOUT_SECONDS)
    started = time.process_time()
    golds = (INTEGER_GOLD, "-1", "0", "1", "2")
    verdicts = grader.grade([GradeRequest("", completion, gold) for completion in COMPLETIONS for gold in golds])
    assert not any(verdict.correct for verdict in verdicts)
    assert time.process_time() - started < 10


@pytest.mark.parametrize("prompt", ["", "Answer:", r"\boxed{}"])
def test_reading_an_answer_is_one_pass(prompt: str) -> None:
    for completion in COMPLETIONS:
        started = time.process_time()
        final_answers(prompt, completion, truncated=False)
        assert time.process_time() - started < 1, completion[:80]


def test_algebra_is_killed_at_its_deadline_and_the_rest_keeps_its_verdicts() -> None:
    pytest.importorskip("math_verify")
    grader = RobustGrader(timeout_seconds=TIMEOUT_SECONDS, workers=2)
    requests, expected = [], []
    for index, completion in enumerate(COMPLETIONS):
        requests.append(GradeRequest("", completion, EXPRESSION_GOLD))
        expected.append(False)
        ordinary, gold, right = ORDINARY[index % 2]
        requests.append(GradeRequest("", ordinary, gold))
        expected.append(right)
    try:
        grader.gold_problems([EXPRESSION_GOLD])  # the first workers start here
        started = time.monotonic()
        verdicts = grader.grade(requests)
        seconds = time.monotonic() - started
    finally:
        grader.close()
    assert [verdict.correct for verdict in verdicts] == expected
    assert all(verdict.error is None for verdict in verdicts[1::2])
    causes = Counter(verdict.error for verdict in verdicts if verdict.error)
    assert set(causes) <= {"no_answer", "too_long", "too_complex", "timeout", "memory", "died", "failed"}
    assert causes["too_complex"] > 20
    late = causes["timeout"] + causes["died"] + causes["memory"]
    assert 1 <= late <= 20
    assert seconds < (late + 1) * (TIMEOUT_SECONDS + RESTART_SECONDS)
