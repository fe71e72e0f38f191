"""Which arguments a reward function gets, by the parameters that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dgpo_cli.rewards.arguments import Arguments, Parameter, arguments_for
from dgpo_cli.rewards.user_function import parameters_of
from dgpo_cli.types import ColumnsAsked, GradeRequest

REQUEST = GradeRequest(
    "template: 1 + 1?",
    "it is 2",
    "2",
    truncated=True,
    completion_tokens=3,
    messages=(("system", "be brief"), ("user", "1 + 1?")),
    columns={"level": "easy", "answer": "unreduced"},
)
P, C, A = REQUEST.prompt, REQUEST.completion, REQUEST.gold


def arguments(function: Callable[..., Any]) -> Arguments:
    parameters = parameters_of(function)
    return arguments_for(None if parameters is None else [Parameter(*one) for one in parameters])


def seen(function: Callable[..., Any]) -> Any:
    """What the function returns, called as in a grading process."""
    sent = arguments(function).of(REQUEST)
    return function(*sent["places"], **sent["named"])


# fmt: off
CALLS: dict[str, tuple[Callable[..., Any], Any]] = {
    "by place": (lambda prompt, completion, answer: (prompt, completion, answer), (P, C, A)),
    "by place, whatever they are called": (lambda level, response, gold: (level, response, gold), (P, C, A)),
    "any number": (lambda *given: given, (P, C, A)),
    "further ones by name": (lambda p, c, a, level, truncated: (p, c, a, level, truncated), (P, C, A, "easy", True)),
    "keywords": (lambda p, c, a, *, completion_tokens: (p, c, a, completion_tokens), (P, C, A, 3)),
    "a default stands for a column that is not there": (lambda p, c, a, slack=0.5: slack, 0.5),
    "a default gives way to a column": (lambda p, c, a, level="hard": level, "easy"),
    "None for a column that other rows have": (lambda p, c, a, source: source, None),
    "fewer than three go by name": (lambda completion, row: (completion, row), (C, REQUEST.columns)),
    "three that name other things go by name": (lambda completion, answer, row: (completion, answer, row["answer"]),
                                               (C, A, "unreduced")),
    "another order goes by name": (lambda answer, completion, prompt: (answer, completion, prompt), (A, C, P)),
    "row in the answer's place": (lambda prompt, completion, row: row["level"], "easy"),
    "turns": (lambda completion, messages: messages, [{"role": "system", "content": "be brief"},
                                                      {"role": "user", "content": "1 + 1?"}]),
    "keywords of any name get none": (lambda p, c, a, **others: others, {}),
}
# fmt: on


@pytest.mark.parametrize("case", CALLS)
def test_what_a_function_is_given(case: str) -> None:
    function, expected = CALLS[case]
    assert seen(function) == expected


def test_a_callable_object_is_a_function_too() -> None:
    class Reward:
        def __call__(self, prompt: str, completion: str, answer: str) -> tuple[str, str, str]:
            return prompt, completion, answer

    assert seen(Reward()) == (P, C, A)


def test_a_function_that_does_not_tell_its_parameters_is_called_by_place() -> None:
    assert parameters_of(min) is None
    assert arguments(min).of(REQUEST) == {"places": [P, C, A], "named": {}}


def test_nothing_is_sent_that_is_not_asked_for() -> None:
    assert arguments(lambda prompt, completion, answer: 0).of(REQUEST) == {"places": [P, C, A], "named": {}}
    assert arguments(lambda completion_tokens: 0).of(REQUEST) == {"places": [], "named": {"completion_tokens": 3}}


def test_the_columns_that_are_asked_for() -> None:
    assert arguments(lambda p, c, a, truncated: 0).columns == ColumnsAsked()
    asked = arguments(lambda p, c, a, level, slack=1.0: 0).columns
    assert asked == ColumnsAsked(required=frozenset({"level"}), optional=frozenset({"slack"}))
    assert arguments(lambda completion, row: 0).columns == ColumnsAsked(every=True)
