"""What learning curves are drawn over: steps, samples and time, each added up from the rows of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_factory import training

from dgpo_cli.reporting.learning_curves import learning_curves
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


def test_a_metric_that_no_row_has_is_not_drawn(tmp_path: Path) -> None:
    runs = find_runs([training(tmp_path / "0", [1], rows=rows([1, 1], 1.0, [None, None]))])[0]
    assert learning_curves(sides(runs)) == {}
