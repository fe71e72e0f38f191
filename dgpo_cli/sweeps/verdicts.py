"""`sweep.compare=true`: the verdicts of `dgpo compare` on the jobs of a sweep, a line a pair."""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.commands.compare import write_comparison
from dgpo_cli.config.commands import CompareConfig
from dgpo_cli.reporting.comparison import Pair
from dgpo_cli.reporting.tables import interval, points
from dgpo_cli.terminal import say

FOLDER = "compare"  # below the sweep's


def say_verdicts(sweep: Path) -> None:
    """Write the comparison of the sweep's jobs into its folder compare/, and say the verdicts.

    Raises:
        DgpoError: nothing in it can be compared.
    """
    pairs, _, _ = write_comparison(CompareConfig(runs=[str(sweep)]), sweep / FOLDER)
    for pair in pairs:
        say(verdict_text(pair))


def verdict_text(pair: Pair) -> str:
    """`b against a, digit_chain: +3.1 points [+0.2, +6.0] at 95%, p 0.029: better`."""
    decision, result = pair.decision, pair.result
    bounds = f" {interval(decision.interval, signed=True)} at {1 - decision.level:.3g}" if decision.interval else ""
    name = pair.as_record()["benchmark"]
    needed = f" ({pair.seeds_needed} a side could)" if pair.seeds_needed else ""
    return (
        f"{pair.b.label} against {pair.a.label}, {name}: {points(result.difference)} points{bounds}, "
        f"p {pair.p_holm:.3g}: {pair.verdict}{needed}"
    )
