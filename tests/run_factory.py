"""Folders of runs and evaluations as `dgpo train` and `dgpo eval` leave them, as far as `dgpo compare` reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SAMPLING = {"temperature": 1.0, "top_p": 0.7, "max_tokens": 8, "seed": 0}


def results(correct: list[int], k: int = 4, **changes: Any) -> dict[str, Any]:
    """The part of results.json that a comparison needs."""
    record: dict[str, Any] = {
        "benchmark": "b",
        "sampling": SAMPLING,
        "avg_at_k": {"k": k},
        "problems": [{"index": i, "id": f"p{i}", "correct": right, "n": k} for i, right in enumerate(correct)],
    }
    return record | changes


def evaluation(folder: Path, correct: list[int], k: int = 4, **changes: Any) -> str:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results(correct, k, **changes)))
    return str(folder)


def training(
    folder: Path,
    correct: list[int],
    *,
    seed: int = 0,
    algo: str = "grpo",
    status: str = "done",
    evaluated: int = 2,
    rows: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> str:
    """A training run of two steps or of `rows`, its metrics, whose last evaluation came after step `evaluated`."""
    last_evaluation = folder / "evals" / f"step_{evaluated:06d}"
    last_evaluation.mkdir(parents=True)
    clip = {"grpo": 0.2, "dapo": 0.28}[algo]
    own = settings.pop("algo_settings", {})
    config = {
        "seed": seed,
        "steps": 2,
        "algo": {"name": algo, "clip_high": clip, **own},
        "logger": {"mode": "auto"},
        **settings,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "run.json").write_text(json.dumps({"status": status, "wall_seconds": 61.5}))
    rows = rows or [{"step": 1, "accuracy": 0.75, "loss": float("nan")}, {"step": 2, "accuracy": 0.5, "loss": 0.1}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    value = sum(correct) / len(correct) / 4
    scores = [{"step": step, "benchmark": "b", "avg_at_k": {"k": 4, "value": value}} for step in sorted({0, evaluated})]
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    (last_evaluation / "results.json").write_text(json.dumps(results(correct)))
    return str(folder)


def suite(folder: Path, **correct: list[int]) -> str:
    """What `dgpo eval benchmark=[...]` writes: a folder of its name for each benchmark."""
    for benchmark, right in correct.items():
        evaluation(folder / benchmark, right, benchmark=benchmark)
    return str(folder)


def samples(run: str, completions: list[list[tuple[str, bool]]], *, prompt: str = "What is {index}?") -> None:
    """samples.jsonl beside the last results.json below a folder: for each problem its completions, right or wrong."""
    folder = max(Path(run).rglob("results.json")).parent
    lines = [
        {
            "index": index,
            "problem_id": f"p{index}",
            "sample": sample,
            "prompt": prompt.replace("{index}", str(index)),
            "completion": completion,
            "answer": completion[-40:] or None,
            "gold": f"gold {index}",
            "correct": right,
        }
        for index, own in enumerate(completions)
        for sample, (completion, right) in enumerate(own)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
