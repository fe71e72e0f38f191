"""Keys that change nothing beside the other choices: which of the typed ones, why, and how to make them count.

Only keys that were typed on the command line are asked about (`idle_rules` has the table): options and recipes bring
keys that wait for a choice. A value that asks for nothing (null, false, none, an empty list, the 0 of a key that is 0
by default) is never idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.idle_rules import RULES, Rule

COUNT_WHEN_FALSE = ("strategy.gather_for_generation",)
MAY_BE_SECRET = ("engine.url", "engine.urls", "engine.api_key_env")


@dataclass(frozen=True)
class Idle:
    """One typed key that changes nothing."""

    key: str
    message: str
    hint: str


def idle_keys(command: str, config: Any, typed: dict[str, Any]) -> list[Idle]:
    """Those of `typed`, the overrides of a job by key or group, that the job does not look at."""
    asked = {key: value for key, value in typed.items() if not _asks_for_nothing(key, value, command)}
    found = (_idle(command, config, typed, key) for key in asked)
    return [idle for idle in found if idle is not None]


def _idle(command: str, config: Any, typed: dict[str, Any], key: str) -> Idle | None:
    """By the first rule that has a reason."""
    for rule in _rules_of(command, key):
        reason = rule.idle(config, typed)
        if reason is not None:
            shown = "..." if key in MAY_BE_SECRET else catalogue.show(typed[key])
            return Idle(key, f"{key}={shown} changes nothing: {reason}", rule.hint)
    return None


def _rules_of(command: str, key: str) -> list[Rule]:
    return [rule for rule in RULES if command in rule.commands and rule.covers(key)]


def _asks_for_nothing(key: str, value: Any, command: str) -> bool:
    if value is None or value == "none" or value == []:
        return True
    if value is False:
        return key not in COUNT_WHEN_FALSE
    if key == "reference":
        return bool(value == "initial")  # the default: it is run only if something measures from it
    known = catalogue.keys(command).get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or known is None:
        return False
    return bool(
        (value == 0 and (known.default == 0 or key.endswith("_every"))) or (value == 1 and key.endswith("top_p"))
    )
