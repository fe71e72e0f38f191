"""A reward function of the user's own inside its grading process: loaded, called, and what it returned checked.

`worker` imports this file. What the function is called with is decided outside (`arguments`), from the parameters
that are reported here.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgpo_cli.config.reward_names import PART_NAME, TAKEN

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

OWN_CODE = str(Path(__file__).parent)
LOGGERS = ("log_extra", "log_metric")  # that TRL's trainers pass; what is given to them goes nowhere


def load(argument: str) -> Callable[..., Any]:
    """The function that `file.py:function` names. The file's folder can be imported from, as if it ran as a script."""
    file, _, name = argument.rpartition(":")
    path = Path(file).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("user_reward_function", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        defined = [one for one in vars(module) if callable(vars(module)[one]) and not one.startswith("_")]
        raise AttributeError(f"{path.name} has no function {name}; it defines {', '.join(defined) or 'none'}")
    return function  # type: ignore[no-any-return]


def parameters_of(function: Callable[..., Any]) -> list[tuple[str, str, bool]] | None:
    """(name, kind, whether it has a default) of each parameter; None if they cannot be told, as of some builtins."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return None
    return [(one.name, one.kind.name, one.default is not one.empty) for one in parameters]


def call(function: Callable[..., Any], request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request: {score, correct, parts}, {invalid} or {raised}; {replies} to a batch, one of each."""
    try:
        if "count" in request:
            return _rewards_in(_result(function, [], _with_loggers(function, request["named"])), request["count"])
        return reward_in(_result(function, request["places"], request["named"]))
    except BaseException as error:  # SystemExit too: nothing that a function raises is a score
        return {"raised": described(error)}


def _result(function: Callable[..., Any], places: list[Any], named: dict[str, Any]) -> Any:
    """What the function returns, or what a coroutine of it comes to."""
    returned = function(*places, **named)
    return _loop().run_until_complete(_awaited(returned)) if inspect.isawaitable(returned) else returned


async def _awaited(returned: Any) -> Any:
    return await returned


@cache
def _loop() -> AbstractEventLoop:
    """One for the whole life of the process, so that a client that a file keeps belongs to it."""
    import asyncio  # here: most functions need none of it, and it takes longer to load than the rest

    return asyncio.new_event_loop()


def _with_loggers(function: Callable[..., Any], named: dict[str, Any]) -> dict[str, Any]:
    names = {one[0] for one in parameters_of(function) or []}
    given: dict[str, Any] = {name: _log_nothing for name in LOGGERS if name in names}
    return named | given | ({"trainer_state": None} if "trainer_state" in names else {})


def _log_nothing(*_: Any, **__: Any) -> None:
    """Parts are logged: a function that returns dicts has them."""


def _rewards_in(returned: Any, count: int) -> dict[str, Any]:
    """{replies} of a list with a reward for each of `count` completions; None is {"score": None}, for no reward."""
    rewards = returned.tolist() if hasattr(returned, "tolist") else returned  # an array of numpy or torch
    if not isinstance(rewards, list | tuple):
        return {"invalid": f"{_shown(returned)} in place of a list with one reward for each completion"}
    if len(rewards) != count:
        return {"invalid": f"{len(rewards)} rewards for {count} completions"}
    return {"replies": [{"score": None} if one is None else reward_in(one) for one in rewards]}


def reward_in(returned: Any) -> dict[str, Any]:
    """{score, correct} of a number, a truth value or (number, correct), with {parts} of a dict; else {invalid}."""
    if isinstance(returned, dict):
        return _reward_with_parts(returned)
    if isinstance(returned, bool) or str(getattr(returned, "dtype", "")) in ("bool", "torch.bool"):
        score, correct = returned, returned
    else:
        score, correct = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    return _reward(score, correct) or {"invalid": _shown(returned)}


def _reward_with_parts(returned: dict[Any, Any]) -> dict[str, Any]:
    reply = _reward(returned.get("score"), returned.get("correct"))
    if reply is None:
        wanted = "a dict without a score" if "score" not in returned else "a score and a correct that cannot be used"
        return {"invalid": f"{wanted}: {_shown(returned)}"}
    parts = {name: value for name, value in returned.items() if name not in ("score", "correct")}
    if isinstance(parts.get("parts"), dict):
        parts |= parts.pop("parts")
    numbers: dict[str, float] = {}
    for name, value in parts.items():
        if not isinstance(name, str) or not PART_NAME.fullmatch(name):
            return {"invalid": f"a part called {name!r}; its name can hold letters, digits and _"}
        if name in TAKEN:
            return {"invalid": f"a part called {name!r}, which is the name of another metric, reward/{name}"}
        number = _finite(value)
        if number is None:
            return {"invalid": f"a part {name!r} that is no finite number: {_shown(value)}"}
        numbers[name] = number
    return reply | ({"parts": numbers} if numbers else {})


def _reward(score: Any, correct: Any) -> dict[str, Any] | None:
    number = _finite(score)
    try:
        known = None if correct is None else bool(correct)
    except (TypeError, ValueError, RuntimeError):
        return None
    if number is None or (known is not None and correct != known):
        return None
    return {"score": number, "correct": known}


def _finite(value: Any) -> float | None:
    """The number that a value is, of numpy and torch too; None for anything else."""
    if isinstance(value, str | bytes | complex) or not hasattr(value, "__float__"):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number + 0.0 if math.isfinite(number) else None  # -0.0 becomes 0.0


def described(error: BaseException) -> str:
    """ValueError: what it says (file.py line 3), the line being the innermost of the user's code."""
    said = traceback.format_exception_only(error)[-1].strip()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    return f"{said} ({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else said


def _is_ours(file: str) -> bool:
    return file.startswith("<frozen") or str(Path(file).parent) == OWN_CODE


def _shown(returned: Any) -> str:
    """Its type and the beginning of its repr, if it has one: a hostile object or a huge integer has none."""
    try:
        return f"{type(returned).__name__} {returned!r:.200}"
    except Exception:
        return type(returned).__name__
