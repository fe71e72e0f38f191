"""A run that is evaluated on several benchmarks, each with a path of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dgpo_cli.cli import main

SMALL = [
    *("rollout.prompts_per_step=2", "rollout.group_size=2", "data.size=16", "logger=none", "steps=1"),
    *("benchmark.limit=3", "benchmark.max_tokens=8", "rollout.max_completion_tokens=16"),
]
# The score of a row goes up or down with every call, over the processes that call it.
REWARD = """
from pathlib import Path

def score(completion, way):
    calls = Path(__file__).with_suffix(".calls")
    with calls.open("a") as stream:
        stream.write(".")
    return calls.stat().st_size * {"up": 1.0, "down": -1.0, "level": 0.0}[way]
"""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    problems = [{"problem": f"Copy {number}", "answer": str(number)} for number in (3, 5, 7, 9)]
    (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    files = f"benchmark.path=[null,{folder / 'val.jsonl'}]"
    assert main(["train", f"hydra.run.dir={folder / 'run'}", "benchmark=[digit_chain,file]", files, *SMALL]) == 0
    return folder / "run"


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


def test_each_benchmark_has_its_rows_and_its_folder(run: Path) -> None:
    evaluations = rows(run / "eval.jsonl")
    assert [(row["step"], row["benchmark"], row["n_problems"]) for row in evaluations] == [
        *((0, "digit_chain", 3), (0, "val", 3), (1, "digit_chain", 3), (1, "val", 3))
    ]
    for name in ("digit_chain", "val"):
        results = json.loads((run / "evals" / "step_000001" / name / "results.json").read_text())
        assert (results["benchmark"], results["n_samples"]) == (name, 3)
    texts = [row["problem_id"] for row in rows(run / "evals" / "step_000000" / "val" / "samples.jsonl")]
    assert len(texts) == 3


def test_a_run_that_was_killed_between_two_benchmarks_goes_on_with_the_second(run: Path, tmp_path: Path) -> None:
    """The second one's samples were cut off: what is there is kept, and the numbers are the same."""
    again = shutil.copytree(run, tmp_path / "run")
    whole = rows(run / "eval.jsonl")
    (again / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in whole[:3]))
    last = again / "evals" / "step_000001"
    first = (last / "digit_chain" / "samples.jsonl").stat().st_mtime_ns
    (last / "val" / "results.json").unlink()
    samples = (last / "val" / "samples.jsonl").read_text()
    (last / "val" / "samples.jsonl").write_text(samples.splitlines(keepends=True)[0])
    assert main(["train", f"resume={again}"]) == 0
    assert list(map(without_seconds, rows(again / "eval.jsonl"))) == list(map(without_seconds, whole))
    assert (last / "val" / "samples.jsonl").read_text() == samples
    assert (last / "digit_chain" / "samples.jsonl").stat().st_mtime_ns == first, "it is not evaluated again"


def test_what_is_typed_again_has_to_be_what_the_run_has(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"resume={run}", "benchmark.limit=2"]) == 2
    err = capsys.readouterr().err
    assert "other_benchmarks.0.limit differs from the run that is continued: 3 there, 2 here" in err


def test_dgpo_compare_compares_each_benchmark_by_itself(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["optim"]["lr"] = 0.5
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert main(["compare", f"runs=[{run},{other}]"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [pair["benchmark"] for pair in record["pairs"]] == ["digit_chain", "val"]
    assert [(one["accuracy"]["benchmark"], one["accuracy"]["step"]) for one in record["runs"]] == [
        *(("digit_chain", 1), ("val", 1)) * 2
    ]


def test_dgpo_eval_of_the_run_repeats_its_last_evaluations(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", f"model.path={run}", f"hydra.run.dir={tmp_path}"]) == 0
    output = capsys.readouterr()
    assert "note: evaluating on each benchmark of the run: digit_chain, val" in output.err
    assert [record["benchmark"] for record in json.loads(output.out)] == ["digit_chain", "val"]
    for name in ("digit_chain", "val"):
        ours, theirs = (rows(folder / name / "samples.jsonl") for folder in (tmp_path, run / "evals" / "step_000001"))
        assert [row["completion"] for row in ours] == [row["completion"] for row in theirs]


def test_the_first_benchmark_says_which_checkpoint_is_the_best(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(REWARD)
    for way in ("up", "down", "level"):
        row = {"problem": "1 + 1 =", "answer": "2", "way": way}
        (tmp_path / f"{way}.jsonl").write_text(json.dumps(row) + "\n")
    files = f"benchmark.path=[{tmp_path / 'down.jsonl'},{tmp_path / 'up.jsonl'}]"
    own = [f"data.path={tmp_path / 'level.jsonl'}", f"reward.path={tmp_path / 'reward.py'}:score", "eval.every=1"]
    settings = [text for text in SMALL if not text.startswith(("steps=", "data.size="))]
    words = ["train", f"hydra.run.dir={tmp_path / 'run'}", "benchmark=[file,file]", files, *own, *settings, "steps=2"]
    assert main(words) == 0
    means = {(row["benchmark"], row["step"]): row["reward"]["mean"] for row in rows(tmp_path / "run" / "eval.jsonl")}
    assert means["down", 1] > means["down", 2]
    assert means["up", 1] < means["up", 2]
    assert (tmp_path / "run" / "checkpoints" / "best").read_text().strip() == "step_000001"
