"""Progress and scores of an evaluation, as lines and as tables."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dgpo_cli.core.intervals import avg_interval
from dgpo_cli.evaluation.evaluate import Progress
from dgpo_cli.evaluation.results import EvaluationResult, summarise
from dgpo_cli.reporting import evaluation_view
from dgpo_cli.reporting.evaluation_view import EvaluationView, result_line, results_table


def result(benchmark: str) -> EvaluationResult:
    record = {"problem_id": "a", "answer": "1", "error": None, "finish_reason": "stop", "completion_tokens": 3}
    records = [{**record, "index": i, "sample": s, "correct": s < i} for i in range(3) for s in range(2)]
    sampling = {"temperature": 1.0, "top_p": 0.7, "max_tokens": 8, "seed": 0}
    return summarise(
        records, benchmark=benchmark, model="m", pass_at=[1, 2], seconds=61, sampling=sampling, manifest={}
    )


def test_every_score_stands_beside_its_interval_and_its_sampling() -> None:
    # 0, 1 and 2 of 2 right: mean 1/2, t(0.975, 2) = 4.3 times 0.5 / sqrt(3) is cut to everything
    assert (
        result_line(result("b")) == "b: avg@2 50.0% [0.0, 100.0] on 3 problems, T=1 top_p=0.7 max_tokens=8, 1 min 01 s"
    )
    stream = io.StringIO()
    Console(file=stream, width=200).print(results_table([result("one"), result("two")]))
    text = stream.getvalue()
    assert "model m" in text
    for name in ("one", "two"):
        row = next(line for line in text.splitlines() if name in line)
        assert "50.0%" in row
        assert "[0.0, 100.0]" in row
        assert "T=1 top_p=0.7 max_tokens=8" in row
    assert "@2 66.7%" in text  # pass@2: 0, 1, 1


def progress(done: int) -> Progress:
    return Progress("b", done, 100, done, seconds=10.0, average=avg_interval([1, 0, 1], [1, 1, 1]))


def test_off_a_terminal_a_plain_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_view, "SECONDS_BETWEEN_LINES", 0.0)
    with EvaluationView() as view:
        view.progress(progress(20))
        view.progress(progress(100))  # the result line says it
        monkeypatch.setattr(evaluation_view, "SECONDS_BETWEEN_LINES", 1e9)
        view.progress(progress(40))
        view.note("a [note] that stays " + "long " * 40)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "b: 20 of 100 samples, 66.7% [0.0, 100.0] right so far, 40 s left"
    assert lines[1].startswith("a [note] that stays")
    assert len(lines) == 2
    assert "\x1b" not in err
