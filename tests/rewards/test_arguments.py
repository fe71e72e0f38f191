"""Which arguments a reward function gets, by the parameters that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dgpo_cli.rewards.arguments import Arguments, Parameter, arguments_for, by_prompt
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


CHAT = replace(REQUEST, chat=True, token_ids=(7, 8))
TURNS = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1 + 1?"}]
# fmt: off
BATCHES: dict[str, tuple[Callable[..., Any], GradeRequest, dict[str, Any]]] = {
    "texts, if the row's prompt is text": (lambda prompts, completions: 0, REQUEST,
                                           {"prompts": [P, P], "completions": [C, C]}),
    "turns, if it is messages": (lambda prompts, completions: 0, CHAT,
                                 {"prompts": [TURNS] * 2,
                                  "completions": [[{"role": "assistant", "content": C}]] * 2}),
    "columns by name": (lambda completions, level: 0, REQUEST, {"completions": [C, C], "level": ["easy", "easy"]}),
    "all of them": (lambda completions, **columns: 0, CHAT,
                    {"prompts": [TURNS] * 2, "completions": [[{"role": "assistant", "content": C}]] * 2,
                     "completion_ids": [[7, 8]] * 2, "level": ["easy"] * 2, "answer": ["unreduced"] * 2}),
    "ids alone": (lambda completion_ids, **kwargs: 0, replace(CHAT, columns={}, chat=False),
                  {"prompts": [P, P], "completions": [C, C], "completion_ids": [[7, 8]] * 2}),
    "a column before what dgpo gives": (lambda completions, answer, truncated: 0, REQUEST,
                                        {"completions": [C, C], "answer": ["unreduced"] * 2,
                                         "truncated": [True, True]}),
    "the gold, if no column is called answer": (lambda completions, answer: 0, replace(REQUEST, columns={}),
                                                {"completions": [C, C], "answer": [A, A]}),
    "a default for a column that is not there": (lambda completions, source="web": 0, REQUEST,
                                                 {"completions": [C, C]}),
    "nothing of a trainer": (lambda completions, trainer_state, log_metric: 0, REQUEST, {"completions": [C, C]}),
}
# fmt: on


@pytest.mark.parametrize("case", BATCHES)
def test_what_a_batch_function_is_given(case: str) -> None:
    function, request, expected = BATCHES[case]
    assert arguments(function).batch
    assert arguments(function).of_batch([request, request]) == {"count": 2, "named": expected}


def test_columns_that_a_batch_function_asks_for() -> None:
    asked = arguments(lambda prompts, completions, level, answer, log_extra=None, odd=1: 0).columns
    assert asked == ColumnsAsked(frozenset({"level"}), frozenset({"odd", "answer"}))
    assert arguments(lambda completions, **columns: 0).columns.every


def test_a_batch_is_the_completions_of_one_prompt() -> None:
    other = replace(REQUEST, prompt="another")
    assert [len(batch) for batch in by_prompt([REQUEST, REQUEST, other, REQUEST])] == [2, 1, 1]
