"""What a single key's type cannot say: settings that do not go together, and files that are not there.

`validate` returns everything that is wrong, each with what to do; `warnings` what is merely risky.
"""

from __future__ import annotations

from typing import Any

from dgpo_cli.errors import Problem


def validate(config: Any, command: str) -> list[Problem]:
    """Every problem of a typed configuration, before anything starts."""
    return []


def warnings(config: Any, command: str) -> list[str]:
    """What the command should say at its start."""
    return []
