"""recipes/trl_token_credit.py inside the real trl, in an environment of its own (tests/install_trl.sh)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.records.foreign import read_foreign

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_trl_computes_the_loss_of_dgpo_from_advantages_of_two_dimensions(tmp_path: Path) -> None:
    install = subprocess.run(
        ["bash", str(ROOT / "tests/install_trl.sh")],
        env=os.environ | {"PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "recipes", "tests"))
    parquet = tmp_path / "completions.parquet"
    done = subprocess.run(
        [install.stdout.strip(), str(ROOT / "tests/recipes/trl_same_loss.py"), str(parquet)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    print(line)
    found: dict[str, list[dict[str, Any]]] = json.loads(line.removeprefix("RESULT "))
    for name in ("surprisal", "hellinger"):
        steps = found[name]
        assert len(steps) == 4
        assert steps[0]["from_signals"] < 1e-4
        for step in steps:
            assert step["trl"] == pytest.approx(step["dgpo"], abs=1e-6)
            assert step["gradient_distance"] < 1e-5
        assert max(step["largest_ratio"] for step in steps) > 1.01  # a second iteration, by a model that has moved
        # That is no agreement of uniform credit with itself.
        assert all(step["gradient_distance_without_credit"] > 1e-3 for step in steps)
        assert any(abs(step["trl"] - step["without_credit"]) > 1e-5 for step in steps)
    # The completions that it wrote on the way are read as docs/rollouts.md says.
    foreign = read_foreign(parquet)
    assert foreign.trainer == "TRL"
    assert all(one.reward is not None and one.advantage is not None for one in foreign.rollouts)
    assert all(len(rows) % 4 == 0 for rows in foreign.groups())
