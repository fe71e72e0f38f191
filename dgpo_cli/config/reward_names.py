"""What the parts of a reward are called: each is logged as `reward/NAME`. The standard library alone.

Several rewards are parts by their names: that of a grader or of a function; functions of one name have that of their
file before it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

PART_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Metrics that are called so already: `reward/mean` cannot be a part as well.
TAKEN = frozenset({"mean", "std", "errors", "timeouts", "no_answer"})


def paths_of(path: str | Sequence[str] | None) -> list[str]:
    """`reward.path` as a list."""
    if path is None:
        return []
    return [path] if isinstance(path, str) else [str(one) for one in path]


def names_of(paths: Sequence[str]) -> list[str]:
    """The name of each of several rewards, given as `file.py:function` or as a grader's name."""
    functions = [path.rpartition(":")[2] for path in paths]
    counts = Counter(functions)
    return [
        f"{_stem(path)}_{function}" if counts[function] > 1 and ":" in path else function
        for path, function in zip(paths, functions, strict=True)
    ]


def unfit(names: Sequence[str]) -> list[str]:
    """Those that cannot be the name of a part: taken by another metric or by another part, or no plain word."""
    return [name for name in names if names.count(name) > 1 or name in TAKEN or not PART_NAME.fullmatch(name)]


def _stem(path: str) -> str:
    return path.rpartition(":")[0].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
