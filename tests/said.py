"""What a command said on stderr, taken apart."""

from __future__ import annotations


def problem_lines(said: str) -> list[str]:
    """What is wrong and what to do, without the lines of what was being done."""
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.strip().startswith(("error: ", "hint: "))]
