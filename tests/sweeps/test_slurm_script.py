"""The script for sbatch that a plan shows, beside the one that the real plug-in submits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgpo_cli.cli import main

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")


def test_a_plan_shows_the_script_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    how = ["hydra.launcher.gpus_per_node=2", "hydra.launcher.timeout_min=600", "hydra.launcher.partition=long"]
    how += ["hydra.launcher.setup=['module load cuda']", "hydra.launcher.array_parallelism=2", "hydra.sweep.dir=s"]
    assert main(["train", "-m", "hydra/launcher=submitit_slurm", *how, "seed=0,1,2", "dry_run=true"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 3
    said, script = err[err.index("sbatch would") :].split("\n", 1)
    assert said == "sbatch would be given this script:"
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in ("gpus-per-node=2", "time=600", "partition=long", "array=0-2%2", "job-name=train"):
        assert f"#SBATCH --{line}" in lines
    assert "module load cuda" in lines
    assert lines[-1].startswith("srun ")
    assert str(tmp_path / "s" / ".submitit") in lines[-1]
    assert not list(tmp_path.iterdir())
