"""The verdicts that end a sweep: those of dgpo compare, a line a pair."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_factory import training

from dgpo_cli.sweeps.sweep_record import Look, PairAtLook, SweepRecord
from dgpo_cli.sweeps.verdicts import say_verdicts


def test_a_sweep_ends_with_the_verdict_of_each_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """4 against 4, all of dapo ahead by half: p is 2/70."""
    for seed in range(4):
        training(tmp_path / f"{seed}_grpo", [0, 0, 2, seed], seed=seed, algo="grpo")
        training(tmp_path / f"{4 + seed}_dapo", [4, 4, 2, seed], seed=seed, algo="dapo")
    pair = PairAtLook("a", "b", 0.5, 0.01, 0.02, 4, "better")
    SweepRecord("train", [], looks=[Look(4, [pair])], max_seeds=8).save(tmp_path)
    say_verdicts(tmp_path)
    err = capsys.readouterr().err
    line = next(line for line in err.splitlines() if " against " in line)
    assert line.startswith("algo=dapo against algo=grpo, b: +50.0 points [")
    assert line.endswith("] at 0.95, p 0.0286: better")
    assert "seeds were added until its comparisons were decided" in err, "p knows nothing of the looks"
    assert (tmp_path / "compare" / "compare.html").is_file()
