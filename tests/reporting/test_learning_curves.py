"""What learning curves are drawn over: steps, samples and time, each added up from the rows of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_factory import suite, training

from dgpo_cli.reporting.comparison import compare
from dgpo_cli.reporting.learning_curves import AXES, drawn_metrics, learning_curves
from dgpo_cli.reporting.plots import curves_svg
from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.sides import sides


def rows(samples: list[int], seconds: float, accuracy: list[float | None]) -> list[dict[str, Any]]:
    return [
        {"step": step, "samples/generated": drawn, "seconds/step": seconds, "accuracy": right}
        for step, (drawn, right) in enumerate(zip(samples, accuracy, strict=True), 1)
    ]


def test_samples_and_time_add_up_and_seeds_are_averaged_where_both_are(tmp_path: Path) -> None:
    runs = [
        training(tmp_path / "0", [1], seed=0, rows=rows([100, 100, 100], 60.0, [0.0, 0.5, 1.0])),
        training(tmp_path / "1", [1], seed=1, rows=rows([100, 200, 100], 30.0, [0.5, 0.5, 0.5])),
        training(tmp_path / "2", [1], algo="dapo", rows=rows([10], 30.0, [0.25])),
    ]
    curves = learning_curves(sides(find_runs(runs)[0]))
    assert {key for _, key in curves} == {"accuracy"}
    first, second = curves["steps", "accuracy"]
    assert (first.label, first.band.runs, second.number) == ("algo=grpo", 2, 1)
    assert first.band.x.tolist() == [1, 2, 3]
    assert first.band.mean.tolist() == [25.0, 50.0, 75.0]  # percent
    assert (first.band.low.tolist(), first.band.high.tolist()) == ([0, 50, 50], [50, 50, 100])
    # 100 200 300 samples against 100 300 400: both reach from 100 to 300; minutes 1 2 3 against 0.5 1 1.5
    assert curves["samples", "accuracy"][0].band.x.tolist() == [100, 200, 300]
    time = curves["time", "accuracy"][0].band
    assert (time.x[0], time.x[-1]) == (1.0, 1.5)
    assert time.mean[-1] == pytest.approx((25.0 + 50.0) / 2)  # half way from 0 to 50 in the first run


def evaluated(folder: Path, seed: int, scores: dict[str, list[float]], drawn: list[int]) -> str:
    """A run whose eval.jsonl has the shares right of each benchmark before the first step and after each."""
    run = training(folder, [1], seed=seed, rows=rows(drawn, 60.0, [0.5] * len(drawn)))
    lines = [
        {"step": step, "benchmark": name, "avg_at_k": {"k": 1, "value": value}}
        for name, values in scores.items()
        for step, value in enumerate(values)
    ]
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_held_out_accuracy_is_drawn_by_benchmark_against_what_each_step_had_taken(tmp_path: Path) -> None:
    runs = [
        evaluated(tmp_path / "0", 0, {"b": [0.0, 0.2, 0.4], "other": [0.5, 0.5, 0.5]}, [100, 100]),
        evaluated(tmp_path / "1", 1, {"b": [0.2, 0.4, 0.6], "other": [0.1, 0.3, 0.5]}, [100, 300]),
    ]
    curves = learning_curves(sides(find_runs(runs)[0]))
    assert [metric.title for metric in drawn_metrics(curves)] == ["accuracy", "b, held out", "other, held out"]
    [steps] = curves["steps", "eval/b"]
    assert (steps.band.x.tolist(), steps.band.runs) == ([0, 1, 2], 2)
    assert steps.band.mean.tolist() == pytest.approx([10.0, 30.0, 50.0])
    assert curves["steps", "eval/other"][0].band.low.tolist() == pytest.approx([10.0, 30.0, 50.0])
    samples = curves["samples", "eval/b"][0].band  # both reach from 0 to 200, where the second stands at 50%
    assert samples.x.tolist() == [0, 100, 200]
    assert samples.mean[-1] == pytest.approx((40 + (40 + 20 * 100 / 300)) / 2)
    assert "other, held out" in curves_svg(curves, AXES[0])


def test_one_evaluation_before_and_one_after_are_no_curve(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "0", 0, {"b": [0.0, 0.2]}, [100])]
    assert {key for _, key in learning_curves(sides(find_runs(runs)[0]))} == {"accuracy"}


def test_two_seeds_of_a_sweep_with_a_name_are_one_side(tmp_path: Path) -> None:
    """A job's name holds its seed."""
    jobs = [training(tmp_path / str(seed), [1], seed=seed, name=f"pair-{seed}_seed-{seed}") for seed in (0, 1)]
    [side] = sides(find_runs(jobs)[0])
    assert (side.label, len(side.runs)) == ("all", 2)


def test_two_benchmarks_of_one_model_are_no_pair(tmp_path: Path) -> None:
    pairs, notes = compare(find_runs([suite(tmp_path, a=[4, 0], b=[0, 4])])[0], alpha=0.05, seed=0, force=False)
    assert (pairs, notes) == ([], [])


def test_a_metric_that_no_row_has_is_not_drawn(tmp_path: Path) -> None:
    runs = find_runs([training(tmp_path / "0", [1], rows=rows([1, 1], 1.0, [None, None]))])[0]
    assert learning_curves(sides(runs)) == {}
