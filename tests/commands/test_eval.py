"""`dgpo eval` from its configuration to its files, stdout and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.cli import main
from dgpo_cli.commands import eval as command
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import BenchmarkConfig, RewardConfig
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.errors import ConfigError, DataError, Interrupted
from dgpo_cli.evaluation.evaluate import Progress
from dgpo_cli.reporting.evaluation_view import EvaluationView

ROWS = [{"problem": f"count {i}", "answer": str(i)} for i in range(6)]


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    path = tmp_path / "benchmark.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def config(benchmark: Path, model: Path | None = None, **changes: Any) -> EvalConfig:
    settings: dict[str, Any] = {"name": "small", "path": str(benchmark), "template": "plain", "reward": "exact"}
    settings |= {"k": 2, "pass_at": [1, 2], "max_tokens": 4} | changes
    overwrite, reward = settings.pop("overwrite", False), settings.pop("reward_config", RewardConfig(name="exact"))
    return EvalConfig(
        overwrite=overwrite,
        model=ModelConfig(path=str(model), template="plain") if model else ModelConfig(),
        reward=reward,
        benchmark=BenchmarkConfig(**settings),
        engine=EngineConfig(batch_size=4),
    )


def test_a_model_is_evaluated_and_json_goes_to_a_pipe(
    benchmark: Path, random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    command.run([config(benchmark, random_model)], folder)
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert printed == json.loads((folder / "results.json").read_text())
    assert (printed["n_problems"], printed["n_samples"], printed["avg_at_k"]["k"]) == (6, 12, 2)
    manifest = printed["manifest"]
    assert manifest["model"]["path"] == str(random_model)
    assert len(manifest["model"]["weights_sha256"]) == 64
    assert manifest["template"] == "plain"
    assert manifest["grader"] == "exact"
    assert "small: avg@2 " in err
    assert "T=1 top_p=1 max_tokens=4" in err  # the preset beside the score
    assert f"files: {folder}" in err


def test_two_benchmarks_load_one_model_and_give_a_list(
    benchmark: Path,
    random_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dgpo_cli.models import policy

    loads = []
    load = policy.load_policy

    def counted(*args: Any) -> Any:
        loads.append(args)
        return load(*args)

    monkeypatch.setattr(policy, "load_policy", counted)
    command.run(
        [config(benchmark, random_model), config(benchmark, random_model, name="short", limit=2)], tmp_path / "out"
    )
    out, err = capsys.readouterr()
    assert [record["n_problems"] for record in json.loads(out)] == [6, 2]
    assert len(loads) == 1
    for name in ("small", "short"):
        assert json.loads((tmp_path / "out" / name / "results.json").read_text())["benchmark"] == name
    assert "benchmark short: the first 2 of 6 problems (benchmark.limit)" in err


def test_the_same_folder_is_continued_and_overwrite_starts_again(
    benchmark: Path, random_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    command.run([config(benchmark, random_model, k=1, pass_at=[1])], folder)
    inode = (folder / "samples.jsonl").stat().st_ino
    command.run([config(benchmark, random_model, k=4)], folder)
    assert (folder / "samples.jsonl").stat().st_ino == inode
    command.run([config(benchmark, random_model, k=4)], tmp_path / "once")
    lines = [sorted((path / "samples.jsonl").read_bytes().splitlines()) for path in (folder, tmp_path / "once")]
    assert lines[0] == lines[1]
    with pytest.raises(ConfigError, match=r"sampling\.temperature"):
        command.run([config(benchmark, random_model, temperature=0.0)], folder)
    command.run([config(benchmark, random_model, temperature=0.0, overwrite=True)], folder)
    assert json.loads((folder / "results.json").read_text())["sampling"]["temperature"] == 0.0


def test_an_unexpected_number_of_rows_and_golds_that_nothing_matches_are_reported(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.write_text('{"problem": "p", "answer": "no mark"}\n{"problem": "q", "answer": "# 4"}\n')
    completions = tmp_path / "completions.jsonl"
    completions.write_text('{"index": 1, "completion": "so #4"}\n')
    changes: dict[str, Any] = {
        "completions": str(completions),
        "rows": 3,
        "reward_config": RewardConfig(name="answer_only"),
    }
    command.run([config(benchmark, **changes)], tmp_path / "out")
    out, err = capsys.readouterr()
    assert "expected 3 rows, found 2" in err
    assert "no answer can match 1 golds, which count as wrong: row 1 (id 0): it has no #" in err
    assert "answers 1 problems; 1 others are left out" in err
    assert json.loads(out)["avg_at_k"]["value"] == 1.0


def test_a_limit_takes_the_rows_of_the_first_problems(benchmark: Path, tmp_path: Path) -> None:
    completions = tmp_path / "completions.jsonl"
    completions.write_text("".join(json.dumps({"index": i, "completion": str(i % 2)}) + "\n" for i in range(6)))
    command.run([config(benchmark, completions=str(completions), limit=4)], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (record["n_problems"], record["avg_at_k"]["value"]) == (4, 0.5)  # rows 0 and 1 are right


def test_stored_completions_are_graded_without_importing_torch(benchmark: Path, tmp_path: Path) -> None:
    completions = tmp_path / "completions.jsonl"
    completions.write_text("".join(json.dumps({"completion": r"\boxed{3}", "gold": str(i)}) + "\n" for i in range(6)))
    code = (
        "import sys; from dgpo_cli.cli import main; code = main(sys.argv[1:]); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "eval", "benchmark=aime2025", f"benchmark.completions={completions}",
         f"hydra.run.dir={tmp_path / 'out'}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    record = json.loads(done.stdout)
    assert (record["n_problems"], record["avg_at_k"]["value"]) == (6, pytest.approx(1 / 6))


def test_no_benchmark_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none is chosen") as caught:
        command.run([EvalConfig()], tmp_path)
    assert "digit_chain" in caught.value.problems[0].hint


def test_nothing_is_deleted_when_the_problems_cannot_be_read(benchmark: Path, tmp_path: Path) -> None:
    completions = tmp_path / "completions.jsonl"
    completions.write_text('{"index": 0, "completion": "0"}\n')
    command.run([config(benchmark, completions=str(completions))], tmp_path / "out")
    benchmark.write_text("not json\n")
    with pytest.raises(DataError, match="not JSON"):
        command.run([config(benchmark, completions=str(completions), overwrite=True)], tmp_path / "out")
    assert (tmp_path / "out" / "results.json").exists()


def test_a_training_runs_folder_is_refused(benchmark: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="holds a training run"):
        command.run([config(benchmark)], tmp_path)


def test_a_reward_function_is_tried_before_anything_is_drawn(
    benchmark: Path, random_model: Path, tmp_path: Path
) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def score(prompt, completion, answer):\n    raise ZeroDivisionError('broken')\n")
    changes: dict[str, Any] = {"reward_config": RewardConfig(name="function", path=f"{reward}:score")}
    with pytest.raises(ConfigError, match="broken"):
        command.run([config(benchmark, random_model, **changes)], tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_reward_function_sees_the_columns_of_stored_completions_and_of_their_benchmark(
    benchmark: Path, tmp_path: Path
) -> None:
    reward, completions = tmp_path / "reward.py", tmp_path / "completions.jsonl"
    reward.write_text(
        "def score(completion, row, completion_tokens, truncated, note=None):\n"
        "    parts = {'tokens': completion_tokens or -1, 'noted': bool(note), 'gold': float(row.get('gold', -2))}\n"
        "    return {'score': 1.0, 'correct': not truncated, **parts}\n"
    )
    function = RewardConfig(name="function", path=f"{reward}:score")
    stored = {"completion": "0", "completion_tokens": 7, "finish_reason": "length", "note": "odd"}
    for name, key in (("of the benchmark", {"index": 0}), ("own golds", {"gold": "5"})):
        completions.write_text(json.dumps(key | stored) + "\n" + json.dumps(key | {"completion": "0"}) + "\n")
        command.run([config(benchmark, completions=str(completions), reward_config=function)], tmp_path / name)
    parts = {
        name: [
            json.loads(line)["reward_parts"] for line in (tmp_path / name / "samples.jsonl").read_text().splitlines()
        ]
        for name in ("of the benchmark", "own golds")
    }
    assert parts["of the benchmark"] == [
        {"tokens": 7, "noted": 0, "gold": -2},
        {"tokens": -1, "noted": 0, "gold": -2},
    ]
    assert parts["own golds"] == [{"tokens": 7, "noted": 1, "gold": 5}, {"tokens": -1, "noted": 0, "gold": 5}]


def test_a_reward_that_is_a_number_alone_has_a_mean_with_its_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.py").write_text("def score(completion):\n    return float(len(completion))\n")
    Path("my val.jsonl").write_text("".join(json.dumps({"question": "?", "answer": "-"}) + "\n" for _ in range(2)))
    stored = [{"index": index, "completion": text} for index, text in ((0, "a"), (0, "abc"), (1, "abcd"))]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stored))
    words = ["benchmark=file", "benchmark.path=my val.jsonl", "benchmark.completions=c.jsonl", "reward.path=r.py:score"]
    assert main(["eval", *words, "hydra.run.dir=out"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert (record["benchmark"], record["avg_at_k"], record["reward"]["mean"]) == ("my-val", None, 3.0)
    assert record["reward"]["ci95"] == pytest.approx([3 - 12.7062, 3 + 12.7062], abs=1e-4)
    assert "my-val: reward 3 [-9.706, 15.71] on 2 problems" in said.err
    samples = [json.loads(line) for line in Path("out/samples.jsonl").read_text().splitlines()]
    assert [(one["correct"], one["reward"]) for one in samples] == [(None, 1.0), (None, 3.0), (None, 4.0)]


@pytest.mark.parametrize("key", ["index", "gold"])
def test_a_column_that_a_reward_function_asks_for_in_vain_is_refused(benchmark: Path, tmp_path: Path, key: str) -> None:
    reward, completions = tmp_path / "reward.py", tmp_path / "completions.jsonl"
    reward.write_text("def score(prompt, completion, answer, anser):\n    return 1.0, True\n")
    completions.write_text(json.dumps({key: 0, "completion": "0", "answer": "0"}) + "\n")
    function = RewardConfig(name="function", path=f"{reward}:score")
    with pytest.raises(DataError, match="the reward function asks for anser: no such column") as caught:
        command.run([config(benchmark, completions=str(completions), reward_config=function)], tmp_path / "out")
    assert caught.value.problems[0].hint == "did you mean answer?"


def test_the_file_of_a_reward_function_is_part_of_what_was_graded(benchmark: Path, tmp_path: Path) -> None:
    reward, completions = tmp_path / "reward.py", tmp_path / "completions.jsonl"
    completions.write_text('{"index": 0, "completion": "0"}\n')
    changes: dict[str, Any] = {
        "completions": str(completions),
        "reward_config": RewardConfig(name="function", path=f"{reward}:score"),
    }
    reward.write_text("def score(prompt, completion, answer):\n    return 1.0, completion == answer\n")
    command.run([config(benchmark, **changes)], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["avg_at_k"]["value"] == 1.0
    reward.write_text("def score(prompt, completion, answer):\n    return 0.0, False\n")
    with pytest.raises(ConfigError, match=r"reward\.sha256"):
        command.run([config(benchmark, **changes)], tmp_path / "out")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_the_samples_kept(
    benchmark: Path,
    random_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    exit_code: int,
) -> None:
    def after_the_third_unit(_view: EvaluationView, now: Progress) -> None:
        if now.done == 10:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(EvaluationView, "progress", after_the_third_unit)
    with pytest.raises(Interrupted, match="the samples drawn so far are in") as caught:
        command.run([config(benchmark, random_model, k=4)], tmp_path / "out")
    assert caught.value.exit_code == exit_code
    assert f"hydra.run.dir={tmp_path / 'out'} continues it" in caught.value.problems[0].hint
    assert len((tmp_path / "out" / "samples.jsonl").read_bytes().splitlines()) == 10
    assert signal.getsignal(signal.SIGTERM) is handler


def test_killed_halfway_and_restarted_equals_uninterrupted(benchmark: Path, random_model: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    overrides = [
        f"model.path={random_model}", "benchmark=aime2025", f"benchmark.path={benchmark}", "benchmark.template=plain",
        "benchmark.k=32", "benchmark.pass_at=[1]", "benchmark.max_tokens=4", "engine.batch_size=2", "reward=exact",
    ]  # fmt: skip
    line = [sys.executable, "-m", "dgpo_cli", "eval", *overrides, f"hydra.run.dir={broken}"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not ((broken / "samples.jsonl").is_file() and (broken / "samples.jsonl").stat().st_size > 1500):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    written = len((broken / "samples.jsonl").read_bytes().splitlines())
    assert 0 < written < 6 * 32

    assert main(["eval", *overrides, f"hydra.run.dir={broken}"]) == 0
    assert main(["eval", *overrides, f"hydra.run.dir={whole}"]) == 0
    lines = [(folder / "samples.jsonl").read_bytes().splitlines() for folder in (whole, broken)]
    assert len(lines[0]) == 6 * 32
    assert sorted(lines[0]) == sorted(lines[1])
    assert lines[0][:written] == lines[1][:written]
