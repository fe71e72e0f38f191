"""`dgpo rollout grade=FILE`: a reward tried on stored completions, without a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.cli import main

REWARD = """
def score(completion, answer):
    right = completion == answer
    return {"score": right + 0.25 * len(completion), "correct": right, "length": len(completion)}

def level(completion, level):
    return float(level)

def broken(completion):
    return 1 / (completion != "b")

def sparse(completions, **columns):
    return [None if one == "b" else True for one in completions]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.py").write_text(REWARD)
    completions = [("a", "0"), ("bb", "0"), ("b", "1"), ("b", "1"), ("a", "2")]
    write("by_id.jsonl", [{"id": f"q{row}", "completion": text} for text, row in completions])
    write("own.jsonl", [{"id": f"q{row}", "completion": text, "gold": "b"} for text, row in completions])
    write("data.jsonl", [{"id": f"q{row}", "prompt": "?", "answer": "b", "level": row} for row in range(3)])
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def graded(capsys: pytest.CaptureFixture[str], *overrides: str, code: int = 0) -> tuple[dict[str, Any], str]:
    assert main(["rollout", *overrides]) == code
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def test_distribution_parts_times_and_errors(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    record, _ = graded(capsys, "grade=own.jsonl", "reward.path=r.py:score")
    assert (record["n"], record["problems"]) == (5, 3)
    assert record["distribution"] == [
        {"from": value, "to": value, "n": n} for value, n in ((0.25, 2), (0.5, 1), (1.25, 2))
    ]
    assert record["score"]["mean"] == pytest.approx((0.25 * 2 + 0.5 + 1.25 * 2) / 5)
    assert (record["score"]["min"], record["score"]["median"], record["score"]["max"]) == (0.25, 0.5, 1.25)
    assert record["correct"] == {"right": 2, "wrong": 3, "unsaid": 0}
    assert record["parts"]["length"]["mean"] == pytest.approx(6 / 5)
    assert record["groups"] == {"n": 2, "no_spread": 1}
    assert (record["errors"], record["failures"]) == ({}, [])
    assert record["seconds"]["calls"]["r.py:score"]["n"] == 5
    assert (record["lowest"]["completion"], record["highest"]["completion"]) == ("a", "b")
    assert not (folder / "outputs").exists()


def test_what_a_file_lacks_comes_from_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    record, _ = graded(capsys, "grade=by_id.jsonl", "data.path=data.jsonl", "reward.path=r.py:score")
    assert record["correct"] == {"right": 2, "wrong": 3, "unsaid": 0}
    record, _ = graded(capsys, "grade=own.jsonl", "data.path=data.jsonl", "reward.path=r.py:level")
    assert record["score"]["mean"] == pytest.approx((0 + 0 + 1 + 1 + 2) / 5)
    assert record["correct"] == {"right": 0, "wrong": 0, "unsaid": 5}


def test_a_call_that_raises_is_counted_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    record, said = graded(capsys, "grade=own.jsonl", "reward.path=r.py:broken", code=1)
    assert (record["errors"], record["score"]["n"]) == ({"failed": 2}, 3)
    assert "ZeroDivisionError" in record["failures"][0]
    assert "error: 2 of 5 completions have no reward" in said


def test_no_score_is_an_error_and_several_rewards_are_parts(capsys: pytest.CaptureFixture[str]) -> None:
    record, _ = graded(capsys, "grade=own.jsonl", "reward=[r.py:sparse,r.py:score]", "reward.weights=[1,0]")
    assert record["parts"]["sparse"]["n"] == 3
    assert record["parts"]["score"]["n"] == record["parts"]["score_length"]["n"] == 5
    record, _ = graded(capsys, "grade=own.jsonl", "reward.path=r.py:sparse")
    assert record["errors"] == {"no_score": 2}


def test_a_grader_of_dgpos_own_is_tried_too(capsys: pytest.CaptureFixture[str]) -> None:
    record, _ = graded(capsys, "grade=own.jsonl", "reward=exact")
    assert (record["reward"], record["score"]["mean"]) == (["exact"], 0.4)


def test_many_scores_are_counted_in_bins(capsys: pytest.CaptureFixture[str]) -> None:
    write("many.jsonl", [{"completion": "x" * length, "gold": "-"} for length in range(41)])
    record, _ = graded(capsys, "grade=many.jsonl", "reward.path=r.py:score")
    assert [one["n"] for one in record["distribution"]] == [4] * 9 + [5]
    assert (record["distribution"][0]["from"], record["distribution"][-1]["to"]) == (0, 10)


@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (["grade=no.jsonl", "reward=exact"], 2, "grade: no file 'no.jsonl'"),
        (["grade=own.jsonl", "prompt=x"], 2, "leave out all but one"),
        (["grade=own.jsonl", "reward=exact", "rollout.group_size=8"], 2, "no model is loaded"),
        (["grade=by_id.jsonl", "data.path=other.jsonl", "reward=exact"], 2, "expected a row of other.jsonl, such as z"),
        (
            ["grade=bare.jsonl", "reward.path=r.py:level"],
            2,
            "asks for level, which no row has, and the rows have no id",
        ),
    ],
)
def test_what_cannot_be_tried_is_refused(
    capsys: pytest.CaptureFixture[str], overrides: list[str], code: int, said: str
) -> None:
    write("other.jsonl", [{"id": "z", "prompt": "?", "answer": "b"}])
    write("bare.jsonl", [{"completion": "a", "gold": "b"}])
    assert main(["rollout", *overrides]) == code
    assert said in capsys.readouterr().err


def test_no_torch_is_imported() -> None:
    code = "import sys; from dgpo_cli.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "rollout", "grade=own.jsonl", "reward=exact"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
