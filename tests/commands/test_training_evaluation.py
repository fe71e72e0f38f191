"""A run that was killed within an evaluation goes on, whatever was changed that may be changed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dgpo_cli.cli import main

SMALL = ["rollout.prompts_per_step=2", "rollout.group_size=2", "data.size=16", "logger=none", "engine.batch_size=2"]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step that a signal ended within its first evaluation, of 48 problems."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    words = ["train", f"hydra.run.dir={folder}", "steps=1", "benchmark.limit=48", *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-m", "dgpo_cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    samples = folder / "evals" / "step_000000" / "samples.jsonl"
    deadline = time.monotonic() + 240
    while not (samples.is_file() and samples.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert 0 < len(lines(samples)) < 48
    assert not (folder / "eval.jsonl").exists()
    return folder


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(killed, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "problems", "k", "kept"),
    [
        ("eval.limit=6", 6, 1, False),
        ("eval.k=2", 48, 2, True),
        ("strategy.compute_dtype=bfloat16", 48, 1, False),
        ("checkpoint.every=1", 48, 1, True),
    ],
)
def test_an_evaluation_that_was_killed_keeps_samples_that_fit_and_else_begins_anew(
    run: Path, change: str, problems: int, k: int, kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run / "evals" / "step_000000"
    before = (first / "samples.jsonl").read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert main(["train", f"resume={run}", change]) == 0
    err = capsys.readouterr().err
    results = json.loads((first / "results.json").read_text())
    assert (results["n_problems"], results["n_samples"]) == (problems, problems * k)
    assert len(lines(run / "eval.jsonl")) == 2, "before and after training"
    aside = run / "evals" / "before_resume_step_000000"
    assert aside.exists() is not kept
    assert ("the evaluation begins anew" in err) is not kept
    assert "overwrite" not in err
    if kept:
        assert (first / "samples.jsonl").read_bytes().startswith(before)
    else:
        assert (aside / "samples.jsonl").read_bytes().startswith(before), "nothing is lost"


def test_a_finished_evaluation_that_was_not_yet_noted_is_kept_beside_the_new_one(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"resume={run}", "eval.limit=4"]) == 0
    last = run / "evals" / "step_000001"
    finished = (last / "results.json").read_bytes()
    (run / "eval.jsonl").write_text(lines(run / "eval.jsonl")[0] + "\n")
    with (last / "samples.jsonl").open("ab") as stream:
        stream.write(b"torn")
    assert main(["train", f"resume={run}", "eval.limit=8", "eval.k=2"]) == 0
    assert (run / "evals" / "before_resume_step_000001" / "results.json").read_bytes() == finished
    assert json.loads((last / "results.json").read_text())["n_problems"] == 8
    assert [json.loads(line)["n_problems"] for line in lines(run / "eval.jsonl")] == [4, 8]


def test_samples_that_cannot_be_read_are_put_aside_in_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = run / "evals" / "step_000000" / "samples.jsonl"
    samples.write_text("no sample\n")
    assert main(["train", f"resume={run}", "benchmark.limit=48"]) == 0
    assert "expected a sample as dgpo eval writes it" in capsys.readouterr().err
    assert (samples.parent.parent / "before_resume_step_000000" / "samples.jsonl").read_text() == "no sample\n"
    assert len(lines(samples)) == 48
