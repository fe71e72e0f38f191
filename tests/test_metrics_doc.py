"""docs/metrics.md explains every metric that a run can log, and none that no run logs."""

from __future__ import annotations

import re
from pathlib import Path

from dgpo_cli.training.metrics import KEYS

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = (
    "reward|groups|completion|ratio|engine|optim|kl|hellinger|credit|score|entropy|grad_norm|samples|tokens|seconds|"
    "memory|comm"
)
SOURCES = ("training", "core", "engines", "algorithm.py")


def documented() -> set[str]:
    """The keys in the first column of the tables."""
    lines = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    return {key for line in lines if line.startswith("| `") for key in re.findall(r"`([^`]+)`", line.split(" | ")[0])}


def logged() -> set[str]:
    """Metric names as they stand in the code, beside KEYS."""
    package = ROOT / "dgpo_cli"
    files = [
        file
        for name in SOURCES
        for file in ([package / name] if name.endswith(".py") else (package / name).rglob("*.py"))
    ]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(rf'"((?:{FAMILIES})/[a-z0-9_]+)"', text)) | set(KEYS)


def test_every_metric_is_explained() -> None:
    assert len(logged()) > len(KEYS)  # kl/p99 and others that are not always there
    assert logged() - documented() == set()


def test_no_metric_is_explained_that_does_not_exist() -> None:
    planned = {"grad_norm/policy", "grad_norm/kl", "engine/*", "reward/NAME"}
    cells = {key for key in documented() if key.startswith("cells/")}
    assert documented() - logged() - cells - planned == set()
    assert cells == {"cells/{high,low}_d_{high,low}_h/{tokens,credit}_{pos,neg}"}


def test_every_row_of_a_table_is_complete() -> None:
    columns = 0
    for line in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            count = line.count("|") - 1
            assert columns in (0, count), line
            columns = count
        else:
            columns = 0
