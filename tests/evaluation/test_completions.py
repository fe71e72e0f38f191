"""Stored completions: which problem each row answers, what is refused, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.evaluation.completions import (
    grade_completions,
    of_benchmark,
    read_completions,
    request_of,
    with_own_golds,
)
from dgpo_cli.rewards import make_grader
from dgpo_cli.types import GradeRequest, Problem

PROBLEMS = [Problem(i, f"id{i}", (("user", f"question {i}"),), str(i)) for i in range(3)]


def stored(folder: Path, rows: list[Any], name: str = "completions.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def problems_of(path: Path) -> list[str]:
    """The error lines that this file earns."""
    with pytest.raises(DataError) as caught:
        of_benchmark(read_completions(path), PROBLEMS)
    return [problem.message.removeprefix(f"{path} ") for problem in caught.value.problems]


def test_rows_by_index_are_samples_of_their_problem_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [{"index": 2, "completion": "a"}, {"index": 0, "completion": "b"}, {"index": 2, "completion": "c"}]
    file = read_completions(stored(tmp_path, rows))
    assert file.key == "index"
    found = of_benchmark(file, PROBLEMS)
    assert [(one.prompt.problem.problem_id, one.sample, one.text) for one in found] == [
        ("id2", 0, "a"),
        ("id0", 0, "b"),
        ("id2", 1, "c"),
    ]
    assert found[0].prompt.text == "question 2"


def test_rows_with_a_gold_are_problems_of_their_own(tmp_path: Path) -> None:
    rows = [{"completion": "a", "gold": 1}, {"completion": "b", "gold": r"so \boxed{070}", "id": "x", "prompt": "p"}]
    file = read_completions(stored(tmp_path, rows))
    assert file.key == "gold"
    first, second = with_own_golds(file, reduce_golds=True)
    assert (first.prompt.problem.index, first.prompt.problem.problem_id, first.prompt.problem.gold) == (0, "0", "1")
    assert (second.prompt.problem.problem_id, second.prompt.problem.gold, second.prompt.text) == ("x", "70", "p")
    assert with_own_golds(file, reduce_golds=False)[1].prompt.problem.gold == r"so \boxed{070}"


def test_an_index_from_a_csv_file_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "completions.csv"
    path.write_text('index,completion\n1,"two\nlines"\n')
    (found,) = of_benchmark(read_completions(path), PROBLEMS)
    assert (found.prompt.problem.index, found.text) == (1, "two\nlines")


def test_every_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    rows = [{"index": 0}, {"index": 0, "completion": 5}, {"completion": "a"}, {"index": 0, "completion": "fine"}]
    assert problems_of(stored(tmp_path, rows)) == [
        "line 1: completion: expected text, found no such key; the row has index",
        "line 2: completion: expected text, found 5",
        "line 3: index: expected the 0-based row of the benchmark, as in other rows, found no such key; the row has "
        "completion",
    ]


@pytest.mark.parametrize("index", [3, -1, 1.5, True, "one"])
def test_an_index_that_is_no_row_is_refused(tmp_path: Path, index: Any) -> None:
    (message,) = problems_of(stored(tmp_path, [{"index": index, "completion": "a"}]))
    assert message == f"line 1: index: expected a row of the benchmark, 0 to 2, found {index!r}"


def test_the_id_of_the_benchmark_is_a_key(tmp_path: Path) -> None:
    rows = [{"completion": text, name: "7b"} for text, name in (("a", "id"), ("b", "problem_id"), ("c", "unique_id"))]
    file = read_completions(stored(tmp_path, [*rows, {"completion": "d", "id": 8}]))
    assert file.key == "id"
    problems = [Problem(row, own, (("user", "q"),), "4") for row, own in enumerate(("8", "7b"))]
    found = [(one.text, one.prompt.problem.index, one.sample) for one in of_benchmark(file, problems)]
    assert found == [("a", 1, 0), ("b", 1, 1), ("c", 1, 2), ("d", 0, 0)]


def test_an_id_that_the_benchmark_has_not_is_refused(tmp_path: Path) -> None:
    file = read_completions(stored(tmp_path, [{"completion": "a", "id": "9"}, {"completion": "b"}][:1]))
    with pytest.raises(DataError, match=r"line 1: id: expected a row of the benchmark, such as 8, found '9'"):
        of_benchmark(file, [Problem(0, "8", (("user", "q"),), "4")])


def test_messages_and_token_ids_of_a_row_reach_the_grader(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    row = {"completion": "a", "gold": "4", "prompt": turns, "token_ids": [3, 1], "finish_reason": "length"}
    [one] = with_own_golds(read_completions(stored(tmp_path, [row])), reduce_golds=False)
    expected = GradeRequest("q", "a", "4", True, 2, (("system", "s"), ("user", "q")), {}, (3, 1), chat=True)
    assert request_of(one) == expected


def test_a_row_without_index_and_gold_is_refused(tmp_path: Path) -> None:
    (message,) = problems_of(stored(tmp_path, [{"completion": "a"}]))
    assert message == (
        "line 1: gold: expected `index` or `id` (of a row of the benchmark), or `gold`, found no such key; the row has "
        "completion"
    )


def graded(path: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    completions = of_benchmark(read_completions(path), PROBLEMS)
    options: dict[str, Any] = {"source": path, "benchmark": "b", "pass_at": [1, 2, 8], "folder": folder}
    grade_completions(completions, changes.pop("grader", make_grader("exact", path=None, timeout_seconds=1)), **options)
    record: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return record


def test_grading_writes_one_record_a_row_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [
        {"index": 1, "completion": "1", "finish_reason": "stop", "completion_tokens": 3},
        {"index": 0, "completion": "", "finish_reason": "length", "completion_tokens": 5},
        {"index": 1, "completion": "7"},
        {"index": 0, "completion": "0"},
    ]
    record = graded(stored(tmp_path, rows), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert [(line["index"], line["sample"], line["completion"], line["correct"]) for line in lines] == [
        (1, 0, "1", True),
        (0, 0, "", False),
        (1, 1, "7", False),
        (0, 1, "0", True),
    ]
    assert record["avg_at_k"]["k"] == 2
    assert record["avg_at_k"]["value"] == 0.5
    assert record["pass_at_k"] == {"1": 0.5, "2": 1.0}  # 8 is more than the file holds
    assert (record["truncated_fraction"], record["completion_tokens_mean"]) == (0.5, 4.0)
    assert record["errors"] == {"no_answer": 1}
    assert record["sampling"] == {"temperature": None, "top_p": None, "max_tokens": None, "seed": None}


def test_grading_the_same_file_again_replaces_and_another_is_refused(tmp_path: Path) -> None:
    first = stored(tmp_path, [{"index": 0, "completion": "0"}])
    other = stored(tmp_path, [{"index": 0, "completion": "1"}], "other.jsonl")
    graded(first, tmp_path / "out")
    graded(first, tmp_path / "out")
    assert len((tmp_path / "out" / "samples.jsonl").read_text().splitlines()) == 1
    with pytest.raises(ConfigError, match="completions_sha256"):
        graded(other, tmp_path / "out")


def test_samples_of_an_evaluation_can_be_graded_again_by_another_grader(tmp_path: Path) -> None:
    graded(stored(tmp_path, [{"index": 2, "completion": "so the answer is #2"}]), tmp_path / "exact")
    answer_only = make_grader("answer_only", path=None, timeout_seconds=1)
    completions = of_benchmark(
        read_completions(tmp_path / "exact" / "samples.jsonl"),
        [Problem(2, "id2", (("user", "question"),), "#2")],
    )
    result = grade_completions(
        completions,
        answer_only,
        source=tmp_path / "exact" / "samples.jsonl",
        benchmark="b",
        pass_at=[1],
        folder=tmp_path / "again",
    )
    assert json.loads((tmp_path / "exact" / "results.json").read_text())["avg_at_k"]["value"] == 0.0
    assert result.avg_at_k is not None
    assert result.avg_at_k.value == 1.0


def test_uneven_numbers_of_completions_take_the_smallest_as_k(tmp_path: Path) -> None:
    rows = [{"index": 0, "completion": "0"}, {"index": 0, "completion": "x"}, {"index": 1, "completion": "1"}]
    record = graded(stored(tmp_path, rows), tmp_path / "out")
    assert record["avg_at_k"]["k"] == 1
    assert record["avg_at_k"]["value"] == 0.75  # (1/2 + 1) / 2
