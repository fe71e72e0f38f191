"""What learning curves are drawn over: steps, samples and time, each added up from the rows of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from run_factory import suite, training

from dgpo_cli.reporting.comparison import compare
from dgpo_cli.reporting.learning_curves import AXES, drawn_metrics, learning_curves
from dgpo_cli.reporting.plots import curves_svg, drawn_axes
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
    assert {key for _, key in curves} == {"eval/b", "accuracy"}
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
        {"step": step, "benchmark": name, "avg_at_k": {"k": 1, "value": value, "ci95": [value - 0.1, value + 0.1]}}
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
    assert [metric.title for metric in drawn_metrics(curves)] == ["b, held out", "other, held out", "accuracy"]
    [steps] = curves["steps", "eval/b"]
    assert (steps.band.x.tolist(), steps.band.runs) == ([0, 1, 2], 2)
    assert steps.band.mean.tolist() == pytest.approx([10.0, 30.0, 50.0])
    # Student's t over runs: 0 and 20 have the standard error 10, times t(0.975, 1) = 12.7; cut to 0 and 100
    assert (steps.band.low[0], steps.band.high[0]) == pytest.approx((0.0, 100.0))
    assert math.isnan(curves["steps", "eval/other"][0].band.low[2])  # both 50: nothing scatters
    samples = curves["samples", "eval/b"][0]  # step 2 was evaluated after 200 and after 400 samples
    assert samples.band.x.tolist() == [0, 100, 300]
    assert samples.band.mean.tolist() == pytest.approx([10.0, 30.0, 50.0])
    assert [(point.step, point.x, round(point.y)) for point in samples.points] == [
        (0, 0, 10),
        (1, 100, 30),
        (2, 300, 50),
    ]
    drawn = curves_svg(curves, AXES[0])
    assert drawn.index("b, held out") < drawn.index("other, held out") < drawn.index("accuracy")


def test_the_band_of_one_run_is_the_interval_of_its_evaluations_and_two_of_them_are_two_points(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "0", 0, {"b": [0.05, 0.2]}, [100])]
    [curve] = learning_curves(sides(find_runs(runs)[0]))["steps", "eval/b"]
    assert curve.band.mean.tolist() == pytest.approx([5, 20])
    assert curve.band.low.tolist() == pytest.approx([0, 10])  # not below 0%
    assert curve.band.high.tolist() == pytest.approx([15, 30])
    assert [point.step for point in curve.points] == [0, 1]


def test_seeds_that_share_no_stretch_of_time_have_a_line_each(tmp_path: Path) -> None:
    slow = [row | {"seconds/step": 600.0} for row in rows([100, 100], 0.0, [0.2, 0.4])]
    runs = [
        training(tmp_path / "0", [1], seed=0, rows=rows([100, 100], 60.0, [0.5, 1.0])),
        training(tmp_path / "1", [1], seed=1, rows=slow),
    ]
    curves = learning_curves(sides(find_runs(runs)[0]))
    first, second = curves["time", "accuracy"]  # 1 and 2 minutes, 10 and 20 minutes
    assert (first.band.x.tolist(), second.band.x.tolist()) == ([1, 2], [10, 20])
    assert (first.run, second.run) == tuple(runs)
    assert (first.label, first.number) == (second.label, second.number) == ("all", 0)
    assert len(curves["steps", "accuracy"]) == 1


def test_an_axis_that_no_run_knows_is_not_drawn(tmp_path: Path) -> None:
    timeless = [row | {"seconds/step": None} for row in rows([100, 100], 0.0, [0.2, 0.4])]
    runs = [training(tmp_path / str(seed), [1], seed=seed, rows=timeless) for seed in range(2)]
    curves = learning_curves(sides(find_runs(runs)[0]))
    assert [axis.name for axis in drawn_axes(curves)] == ["steps", "samples"]


def test_rewards_on_unlike_scales_have_a_drawing_each(tmp_path: Path) -> None:
    scored = [row | {"reward/mean": 0.5} for row in rows([100, 100], 1.0, [0.2, 0.4])]
    signed, plain = {"reward_right": 1.0, "reward_wrong": -1.0}, {"reward_right": 1.0, "reward_wrong": 0.0}
    a, b, c = (
        training(tmp_path / name, [1], rows=scored, algo=algo, algo_settings=settings)
        for name, algo, settings in (("a", "grpo", plain), ("b", "dapo", signed), ("c", "grpo", plain | {"x": 1}))
    )
    curves = learning_curves(sides(find_runs([a, b, c])[0]))
    titles = [metric.title for metric in drawn_metrics(curves)]
    assert titles == ["b, held out", "reward, 0.0 to 1.0", "reward, -1.0 to 1.0", "accuracy"]
    assert [curve.number for curve in curves["steps", "reward/mean 0.0 to 1.0"]] == [0, 2]
    alike = learning_curves(sides(find_runs([a, c])[0]))
    assert [metric.title for metric in drawn_metrics(alike)] == ["b, held out", "reward", "accuracy"]


def test_points_with_evidence_are_bounded_and_reach_to_the_end(tmp_path: Path) -> None:
    long = rows([1] * 100, 1.0, [0.5] * 100)
    [curve] = learning_curves(sides(find_runs([training(tmp_path / "0", [1], rows=long)])[0]))["steps", "accuracy"]
    steps = [point.step for point in curve.points]
    assert len(steps) == 24
    assert steps[-1] == 100


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
    assert {key for _, key in learning_curves(sides(runs))} == {"eval/b"}
