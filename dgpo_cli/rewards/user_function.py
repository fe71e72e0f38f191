"""A reward function of the user's own inside its grading process: loaded, called, and what it returned checked.

`worker` imports this file. What the function is called with is decided outside (`arguments`), from the parameters
that are reported here.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PART_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Metrics that are called so already: `reward/mean` cannot be a part as well.
TAKEN = frozenset({"mean", "std", "errors", "timeouts", "no_answer"})
OWN_CODE = str(Path(__file__).parent)


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
    """The reply to one request: {score, correct, parts}, {invalid} or {raised}."""
    try:
        return reward_in(function(*request["places"], **request["named"]))
    except BaseException as error:  # SystemExit too: nothing that a function raises is a score
        return {"raised": described(error)}


def reward_in(returned: Any) -> dict[str, Any]:
    """{score, correct} of a number or (number, correct), with {parts} of a dict; {invalid} of anything else."""
    if isinstance(returned, dict):
        return _reward_with_parts(returned)
    score, correct = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    return _reward(score, correct) or {"invalid": _shown(returned)}


def _reward_with_parts(returned: dict[Any, Any]) -> dict[str, Any]:
    reply = _reward(returned.get("score"), returned.get("correct"))
    if reply is None:
        wanted = "a dict without a score" if "score" not in returned else "a score and a correct that cannot be used"
        return {"invalid": f"{wanted}: {_shown(returned)}"}
    parts = {name: value for name, value in returned.items() if name not in ("score", "correct")}
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
