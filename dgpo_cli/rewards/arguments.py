"""The arguments of a reward function of the user's own, by its parameters.

    def score(prompt, completion, answer): ...                        by place, whatever the three are called
    def score(prompt, completion, answer, difficulty, truncated): ... further ones by name
    def score(completion, row): ...                                   all by name
    def score(prompts, completions, **columns): ...                   a batch: a list of each, by name, as TRL calls it

A name is one of `GIVEN` (of a batch also one of `GIVEN_LISTS`), or a column of the data. The first three go by place,
unless there are fewer of them or one has the name of something else that could be given: such a function means the
names.

A batch is the completions of one prompt, so it does not depend on the number of processes. What TRL's trainers pass,
and nothing here has a value for, is `OF_TRAINERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dgpo_cli.types import ColumnsAsked, GradeRequest

GIVEN: dict[str, Callable[[GradeRequest], Any]] = {
    "prompt": lambda request: request.prompt,
    "completion": lambda request: request.completion,
    "answer": lambda request: request.gold,
    "messages": lambda request: _turns(request),
    "truncated": lambda request: request.truncated,
    "completion_tokens": lambda request: request.completion_tokens,
    "row": lambda request: request.columns,
}
# If a row's prompt is a list of messages, so are these: a completion is then one turn of the assistant.
GIVEN_LISTS: dict[str, Callable[[GradeRequest], Any]] = {
    "prompts": lambda request: _turns(request) if request.chat else request.prompt,
    "completions": lambda request: (
        [{"role": "assistant", "content": request.completion}] if request.chat else request.completion
    ),
    "completion_ids": lambda request: list(request.token_ids),
}
OF_TRAINERS = ("trainer_state", "log_extra", "log_metric")  # None, and two functions that do nothing (user_function)
BY_PLACE = ("prompt", "completion", "answer")


def _turns(request: GradeRequest) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in request.messages]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function, as the process that loaded it reports it. kind: `inspect`'s name for it."""

    name: str
    kind: str
    has_default: bool


@dataclass(frozen=True)
class Arguments:
    """The names of one function's arguments: `places` in this order, and `named` (name -> whether it has a default).

    batch: one call for all completions of a prompt. takes_all: it has **columns, and gets every column.
    """

    places: tuple[str, ...]
    named: Mapping[str, bool]
    batch: bool = False
    takes_all: bool = False

    @property
    def columns(self) -> ColumnsAsked:
        """The columns of the data among them."""
        given = (*GIVEN, *GIVEN_LISTS, *OF_TRAINERS) if self.batch else GIVEN
        asked = {name: has_default for name, has_default in self.named.items() if name not in given}
        # In a batch a column has its own name, as in TRL: `answer` is the gold only if no column is called so.
        own = frozenset(name for name in self.named if self.batch and name in GIVEN and name != "row")
        return ColumnsAsked(
            required=frozenset(name for name, has_default in asked.items() if not has_default),
            optional=frozenset(name for name, has_default in asked.items() if has_default) | own,
            every="row" in self.named or self.takes_all,
        )

    def of(self, request: GradeRequest) -> dict[str, Any]:
        """The values for one call, as they are sent to the function's process: nothing that it does not ask for."""
        named: dict[str, Any] = {}
        for name, has_default in self.named.items():
            if name in GIVEN:
                named[name] = GIVEN[name](request)
            elif name in request.columns:
                named[name] = request.columns[name]
            elif not has_default:
                named[name] = None  # another row has this column
        return {"places": [GIVEN[name](request) for name in self.places], "named": named}

    def of_batch(self, requests: Sequence[GradeRequest]) -> dict[str, Any]:
        """The lists for one call of a batch function. `count` tells the process that it is one."""
        columns = dict.fromkeys(name for request in requests for name in request.columns)
        names = [name for name, has_default in self.named.items() if self._has(name, has_default, columns)]
        if self.takes_all:
            names += [*GIVEN_LISTS, *(name for name in columns if name not in ("prompt", "completion"))]
        named = {name: [self._value(name, request) for request in requests] for name in dict.fromkeys(names)}
        return {"count": len(requests), "named": named}

    def _has(self, name: str, has_default: bool, columns: Mapping[str, Any]) -> bool:
        return name not in OF_TRAINERS and (name in columns or name in GIVEN or name in GIVEN_LISTS or not has_default)

    def _value(self, name: str, request: GradeRequest) -> Any:
        if name in GIVEN_LISTS:
            return GIVEN_LISTS[name](request)
        if name in request.columns or name not in GIVEN:
            return request.columns.get(name)
        return GIVEN[name](request)


def arguments_for(parameters: Sequence[Parameter] | None) -> Arguments:
    """The arguments of a function with these parameters; None stands for a function that does not tell them."""
    if parameters is None:
        return Arguments(BY_PLACE, {})
    places = [one.name for one in parameters if one.kind.startswith("POSITIONAL")]
    enough = len(places) >= len(BY_PLACE) or any(one.kind == "VAR_POSITIONAL" for one in parameters)
    if _is_batch(parameters, enough):
        named = {one.name: one.has_default for one in parameters if not one.kind.startswith("VAR")}
        return Arguments((), named, batch=True, takes_all=any(one.kind == "VAR_KEYWORD" for one in parameters))
    misplaced = any(name in GIVEN and name != own for name, own in zip(places, BY_PLACE, strict=False))
    by_place = enough and not misplaced
    taken = places[: len(BY_PLACE)] if by_place else []
    named = {
        one.name: one.has_default for one in parameters if not one.kind.startswith("VAR") and one.name not in taken
    }
    return Arguments(BY_PLACE if by_place else (), named)


def _is_batch(parameters: Sequence[Parameter], enough: bool) -> bool:
    """It names `prompts` or `completions`; or it takes any keyword, and names nothing of a single completion."""
    names = {one.name for one in parameters}
    if names & {"prompts", "completions"}:
        return True
    takes_all = any(one.kind == "VAR_KEYWORD" for one in parameters)
    return takes_all and not enough and not names & GIVEN.keys()


def by_prompt(requests: Sequence[GradeRequest]) -> list[list[GradeRequest]]:
    """The requests in calls of a batch function: those that stand together and answer one prompt."""
    return [list(group) for _, group in groupby(requests, key=lambda one: (one.prompt, one.gold))]
