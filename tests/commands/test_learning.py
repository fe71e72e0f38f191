"""The proof that the bundled model learns: whole runs, about a minute each. By hand: pytest -m slow"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgpo_cli.cli import main

RUNS = [("dgpo", 0), ("dgpo", 1), ("dgpo", 2), ("dgpo", 3), ("dgpo", 4)] + [
    (algo, seed) for algo in ("grpo", "dapo") for seed in (0, 1, 2)
]


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "seed"), RUNS)
def test_the_bundled_model_learns_the_whole_chain(algo: str, seed: int, tmp_path: Path) -> None:
    run, greedy = tmp_path / "run", tmp_path / "greedy"
    assert main(["train", f"hydra.run.dir={run}", f"algo={algo}", f"seed={seed}", "logger=none"]) == 0
    before, after = (json.loads(line)["avg_at_k"]["value"] for line in (run / "eval.jsonl").read_text().splitlines())
    assert before <= 0.45
    assert after >= 0.85
    assert main(["eval", f"hydra.run.dir={greedy}", f"model.path={run}", "benchmark.temperature=0"]) == 0
    assert json.loads((greedy / "results.json").read_text())["avg_at_k"]["value"] >= 0.88
