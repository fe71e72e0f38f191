"""The longest context by the plan, and the table that says it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.contexts import STRATEGIES, longest_context
from dgpo_cli.planning.memory import Setting, standing

ROOT = Path(__file__).parents[2]
MODEL = Architecture(512, 8, 8, 2, 64, 1408, 32_000, True, None)


def test_the_documentation_says_what_the_plan_computes() -> None:
    line = [sys.executable, "benchmarks/plan.py", "--contexts"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_nothing_fits_where_the_weights_do_not() -> None:
    held = standing(MODEL, Setting(device="cuda", reference="copy")).total
    assert longest_context(MODEL, STRATEGIES["single, ddp"], held) == 0


def test_a_longer_context_needs_more_memory_and_ends_at_the_models_own() -> None:
    contexts = [longest_context(MODEL, STRATEGIES["single, ddp"], size * 2**30) for size in (4, 8, 16)]
    assert 0 < contexts[0] < contexts[1] < contexts[2]
    assert longest_context(replace(MODEL, max_positions=2000), STRATEGIES["fsdp"], 2**36) == 1792  # 7 x 256
