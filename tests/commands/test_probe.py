"""`dgpo train probe=true`: the plan's peak beside a measured one. Larger models: benchmarks/plan.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WITHIN = 0.15


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is counted by Linux alone")
@pytest.mark.parametrize(
    "more",
    [
        [],
        pytest.param(["strategy=ddp", "strategy.num_processes=2", "strategy.device=cpu"], marks=pytest.mark.slow),
        pytest.param(["strategy=fsdp", "strategy.num_processes=2", "strategy.device=cpu"], marks=pytest.mark.slow),
    ],
    ids=["single", "ddp", "fsdp"],
)
def test_a_measured_update_takes_what_was_planned_and_leaves_no_folder(more: list[str], tmp_path: Path) -> None:
    line = [sys.executable, "-m", "dgpo_cli", "train", "probe=true", "strategy.threads=1", *more]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["predicted_over_measured"] == pytest.approx(1, abs=WITHIN)
    assert record["predicted_bytes"] == sum(record["predicted"].values())
    assert "VmHWM" in record["method"]
    assert list(tmp_path.iterdir()) == []
