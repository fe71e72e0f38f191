"""The arguments of a reward function of the user's own, by its parameters.

    def score(prompt, completion, answer): ...                        by place, whatever the three are called
    def score(prompt, completion, answer, difficulty, truncated): ... further ones by name
    def score(completion, row): ...                                   all by name

A name is one of `GIVEN`, or a column of the data. The first three go by place, unless there are fewer of them or one
has the name of something else that could be given: such a function means the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dgpo_cli.types import ColumnsAsked, GradeRequest

GIVEN: dict[str, Callable[[GradeRequest], Any]] = {
    "prompt": lambda request: request.prompt,
    "completion": lambda request: request.completion,
    "answer": lambda request: request.gold,
    "messages": lambda request: [{"role": role, "content": content} for role, content in request.messages],
    "truncated": lambda request: request.truncated,
    "completion_tokens": lambda request: request.completion_tokens,
    "row": lambda request: request.columns,
}
BY_PLACE = ("prompt", "completion", "answer")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function, as the process that loaded it reports it. kind: `inspect`'s name for it."""

    name: str
    kind: str
    has_default: bool


@dataclass(frozen=True)
class Arguments:
    """The names of one function's arguments: `places` in this order, and `named` (name -> whether it has a default)."""

    places: tuple[str, ...]
    named: Mapping[str, bool]

    @property
    def columns(self) -> ColumnsAsked:
        """The columns of the data among them."""
        asked = {name: has_default for name, has_default in self.named.items() if name not in GIVEN}
        return ColumnsAsked(
            required=frozenset(name for name, has_default in asked.items() if not has_default),
            optional=frozenset(name for name, has_default in asked.items() if has_default),
            every="row" in self.named,
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


def arguments_for(parameters: Sequence[Parameter] | None) -> Arguments:
    """The arguments of a function with these parameters; None stands for a function that does not tell them."""
    if parameters is None:
        return Arguments(BY_PLACE, {})
    places = [one.name for one in parameters if one.kind.startswith("POSITIONAL")]
    enough = len(places) >= len(BY_PLACE) or any(one.kind == "VAR_POSITIONAL" for one in parameters)
    misplaced = any(name in GIVEN and name != own for name, own in zip(places, BY_PLACE, strict=False))
    by_place = enough and not misplaced
    taken = places[: len(BY_PLACE)] if by_place else []
    named = {
        one.name: one.has_default for one in parameters if not one.kind.startswith("VAR") and one.name not in taken
    }
    return Arguments(BY_PLACE if by_place else (), named)
