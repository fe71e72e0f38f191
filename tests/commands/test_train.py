"""`dgpo train`, the real command: its files, its refusals, its resumption."""

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
import torch
from model_factory import save_random_model
from record_factory import page_credit
from transformers import AutoModelForCausalLM, AutoTokenizer

from dgpo_cli.cli import main
from dgpo_cli.training.metrics import CLOCKED, KEYS

QUICK = [
    "logger=none",
    "benchmark.limit=16",
    "rollout.prompts_per_step=4",
    "rollout.group_size=4",
    "data.size=64",
]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(folder: Path, *overrides: str) -> int:
    return main(["train", f"hydra.run.dir={folder}", *quick(*overrides)])


def quick(*overrides: str) -> list[str]:
    """QUICK with these, without the keys that change nothing beside them."""
    own_data = any(text.startswith("data.path=") for text in overrides)
    idle = ["benchmark."] * (own_data or "benchmark=none" in overrides) + ["data.size"] * own_data
    return [*(text for text in QUICK if not text.startswith(tuple(idle))), *overrides]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """The command in a process of its own, to be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "dgpo_cli", "train", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for_rows(folder: Path, process: subprocess.Popen[str], count: int, *, seconds: float = 120.0) -> None:
    """Until metrics.jsonl has so many rows."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        path = folder / "metrics.jsonl"
        if path.is_file() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} rows in {folder}: {process.communicate()}")


def without_clocks(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith(CLOCKED)}


def same_run(left: Path, right: Path) -> None:
    """Equal metrics but for the clocks, and equal final weights, bit for bit."""
    ours, theirs = ([without_clocks(row) for row in rows(folder / "metrics.jsonl")] for folder in (left, right))
    assert ours == theirs
    latest = (left / "checkpoints" / "latest").read_text()
    assert latest == (right / "checkpoints" / "latest").read_text()
    for part in ("model/model.safetensors",):
        assert (left / "checkpoints" / latest / part).read_bytes() == (
            right / "checkpoints" / latest / part
        ).read_bytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps."""
    folder = tmp_path_factory.mktemp("runs") / "three"
    assert train(folder, "steps=3", "checkpoint.every=2", "rollout.save=all") == 0
    return folder


def test_a_run_leaves_every_file(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "eval.jsonl", "evals", "checkpoints", "rollouts"} <= names
    run = json.loads((trained / "run.json").read_text())
    assert run["status"] == "done"
    assert run["sampling"]["repetition_penalty"] == 1.0
    assert [row["step"] for row in rows(trained / "eval.jsonl")] == [0, 3]
    assert (trained / "evals/step_000003/results.json").is_file()
    assert sorted(path.name for path in (trained / "rollouts").iterdir()) == [
        f"step_00000{step}.jsonl" for step in (1, 2, 3)
    ]


def test_metrics_hold_every_key_of_the_contract(trained: Path) -> None:
    metrics = rows(trained / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3]
    for row in metrics:
        assert set(KEYS) <= set(row)
        assert row["samples/generated"] == 16
        assert row["tokens/generated"] > 0


def test_at_the_first_step_no_credit_is_redistributed(trained: Path) -> None:
    metrics = rows(trained / "metrics.jsonl")
    assert metrics[0]["hellinger/max"] == 0.0
    assert metrics[0]["credit/ess"] == 1.0
    assert metrics[2]["hellinger/mean"] > 0.0
    assert metrics[2]["credit/ess"] < 1.0
    scored = [record for record in rows(trained / "rollouts/step_000001.jsonl") if record["credit"]]
    assert scored
    assert all(set(record["credit"]) == {1.0} for record in scored)


def test_checkpoints_are_models(trained: Path) -> None:
    latest = (trained / "checkpoints/latest").read_text()
    assert latest == "step_000003"
    model = AutoModelForCausalLM.from_pretrained(trained / "checkpoints" / latest / "model")
    AutoTokenizer.from_pretrained(trained / "checkpoints" / latest / "model")
    assert model.dtype == torch.float32


def test_the_last_line_on_stdout_is_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "steps=1", "benchmark=none") == 0
    captured = capsys.readouterr()
    assert captured.out.strip().splitlines() == [str(tmp_path / "run")]
    assert "next: dgpo eval" in captured.err


def test_wandb_runs_offline_with_the_same_names(tmp_path: Path) -> None:
    settings = ("steps=2", "gating=calibrated", "rollout.prompts_per_step=20", "rollout.save=all", "benchmark=none")
    assert train(tmp_path / "run", *settings, "logger=wandb", "logger.mode=offline") == 0
    files = list((tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1
    stored = files[0].read_bytes()
    assert b"reward/mean" in stored
    assert b"credit/ess" in stored
    assert b"0_story/08_credit_ess" in stored
    assert b"dgpo-calibrated-tiny-digit_chain-0" in stored
    assert b"git_commit" in stored  # the manifest, beside the configuration
    table = min((tmp_path / "run/wandb").glob("offline-run-*/files/media/table/completions_*.table.json"))
    content = json.loads(table.read_text())
    assert content["data"][0][:2] == [1, str(json.loads(content_of(tmp_path / "run", 1)[0])["prompt_id"])]
    pages = [
        file for file in (tmp_path / "run/wandb").rglob("*") if file.is_file() and b"Token credit" in file.read_bytes()
    ]
    [page] = pages  # the artifact waits beside the run that names it
    records = [json.loads(line) for line in content_of(tmp_path / "run", 2)]
    assert len(records) > 64
    assert page_credit(page.read_text())["calibrated"] == [record["credit"] for record in records[:64]]
    assert b"credit-" in stored


def content_of(run: Path, step: int) -> list[str]:
    return (run / f"rollouts/step_{step:06d}.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    "overrides",
    [
        ["algo=dgpo", "gating=calibrated", "optim.minibatches=2", "optim.epochs=2"],
        pytest.param(
            ["algo=dapo", "data.size=6", "checkpoint.every=1", "algo.dynamic_sampling.max_refills=2"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["algo=grpo", "gating=random", "reference.refresh_every=2", "checkpoint.every=2"], marks=pytest.mark.slow
        ),
    ],
    ids=["dgpo", "dapo", "grpo"],
)
def test_a_killed_run_resumes_to_the_same_numbers(tmp_path: Path, overrides: list[str]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = ["steps=5", "eval.every=2", *overrides]
    assert train(whole, *settings) == 0
    process = start(killed, f"hydra.run.dir={killed}", *quick(*settings))
    wait_for_rows(killed, process, 3)
    process.kill()
    process.communicate()
    assert main(["train", f"resume={killed}"]) == 0
    same_run(whole, killed)
    assert [row["step"] for row in rows(killed / "eval.jsonl")] == [row["step"] for row in rows(whole / "eval.jsonl")]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_run_and_it_resumes(tmp_path: Path, number: signal.Signals, code: int) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, "steps=4", "benchmark=none") == 0
    process = start(stopped, f"hydra.run.dir={stopped}", *quick("steps=4", "benchmark=none"))
    wait_for_rows(stopped, process, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "hint: dgpo train resume=" in errors
    assert "Traceback" not in errors
    latest = int((stopped / "checkpoints/latest").read_text().removeprefix("step_"))
    assert rows(stopped / "metrics.jsonl")[-1]["step"] == latest
    assert json.loads((stopped / "run.json").read_text())["status"] == "interrupted"
    assert main(["train", f"resume={stopped}"]) == 0
    same_run(whole, stopped)


def test_resuming_a_finished_run_changes_nothing(trained: Path) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    assert main(["train", f"resume={trained}"]) == 0
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_fewer_steps_than_are_done_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert main(["train", f"resume={trained}", "steps=2"]) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert f"steps=2, but the run in {trained} has done " in said
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_more_steps_let_the_schedule_decay_from_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert train(folder, "steps=3", "benchmark=none", "optim.warmup_steps=1") == 0
    assert main(["train", f"resume={folder}", "steps=5"]) == 0
    assert "decays from where it stands" in capsys.readouterr().err
    rates = [row["lr"] for row in rows(folder / "metrics.jsonl")]
    assert rates == pytest.approx([5e-4, 2.75e-4, 5e-5, 5e-5, 5e-5])  # it had ended: 10% of 5e-4


def refused(capsys: pytest.CaptureFixture[str], folder: Path, code: int, *overrides: str) -> str:
    """The error lines of a run that is refused; no folder that looks like a run is left."""
    assert train(folder, *overrides) == code
    captured = capsys.readouterr()
    errors = captured.err
    assert captured.out == ""
    assert "error: " in errors
    assert "hint: " in errors
    assert "Traceback" not in errors
    assert not (folder / "checkpoints").exists()
    return errors


def test_bad_data_is_refused_with_file_line_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    for content, expected in (
        ('{"prompt": "1+1=?", "answer": "2"}\n{"prompt": \n', "line 2"),
        ('{"question_text": "1+1=?", "answer": "2"}\n', "prompt"),
        ('{"prompt": "1+1=?", "answer": "2"}\n{"prompt": "  ", "answer": "2"}\n', "line 2"),
        ('{"prompt": "' + "1+" * 400 + '1=?", "answer": "2"}\n', "context"),
    ):
        path.write_text(content)
        errors = refused(capsys, tmp_path / "run", 2, f"data.path={path}", "data.template=plain")
        assert expected in errors


def test_a_reward_that_raises_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def score(prompt, completion, answer):\n    return 1 / 0\n")
    errors = refused(capsys, tmp_path / "run", 2, f"reward.path={reward}:score")
    assert "ZeroDivisionError" in errors


PARTED = """
def score(completion, answer, completion_tokens, level, row, messages, truncated):
    assert level == len(row["prompt"]) and messages == [{"role": "user", "content": row["prompt"]}]
    assert isinstance(truncated, bool) and row["answer"] == answer
    right = completion.endswith(answer)
    parts = {"tokens": completion_tokens} | ({"level": level} if completion_tokens % 2 else {})
    return {"score": right - 0.01 * completion_tokens, "correct": right, **parts}
"""


def test_parts_of_a_reward_are_logged_and_stored_with_every_rollout_and_sample(tmp_path: Path) -> None:
    """By a function that asks for columns of its data; training and evaluation read the same rows."""
    (tmp_path / "reward.py").write_text(PARTED)
    asked = [{"prompt": "1 + 1 =" + " " * (i % 3), "answer": str(i), "level": 7 + i % 3} for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    data = [f"data.path={tmp_path / 'rows.jsonl'}", "data.template=plain", "rollout.save=all"]
    held_out = ["benchmark=digit_chain", "benchmark.prompt_key=prompt", "benchmark.answer_key=answer"]
    held_out += [f"benchmark.path={tmp_path / 'rows.jsonl'}", "benchmark.limit=4"]
    settings = [*data, *held_out, f"reward.path={tmp_path / 'reward.py'}:score"]
    assert train(tmp_path / "run", "steps=1", *settings) == 0
    [row] = rows(tmp_path / "run/metrics.jsonl")
    records = rows(tmp_path / "run/rollouts/step_000001.jsonl")
    assert [record["reward_parts"]["tokens"] for record in records] == [len(record["token_ids"]) for record in records]
    assert row["reward/tokens"] == row["completion/length_mean"]
    odd = [len(record["prompt"]) for record in records if len(record["token_ids"]) % 2]  # they alone have the part
    assert [record["reward_parts"].get("level") is None for record in records].count(False) == len(odd)
    assert 0 < len(odd) < len(records)
    assert row["reward/level"] == sum(odd) / len(odd)
    samples = rows(tmp_path / "run/evals/step_000001/samples.jsonl")
    assert [sample["reward_parts"]["tokens"] for sample in samples] == [one["completion_tokens"] for one in samples]


def test_several_rewards_are_summed_and_each_is_logged_and_stored(tmp_path: Path) -> None:
    """A batch function in TRL's form beside a grader; a run that goes on has what each of its functions gave."""
    (tmp_path / "brief.py").write_text(
        "def brief(prompts, completions, completion_ids, **columns):\n"
        "    assert set(columns) == {'answer'} and len(set(prompts)) == 1 and len(completions) in (1, 4)\n"
        "    return [-len(ids) for ids in completion_ids]\n"
    )
    reward = [f"reward=[exact,{tmp_path / 'brief.py'}:brief]", "reward.weights=[1,0.125]", "reward.workers=1"]
    assert train(tmp_path / "run", "steps=1", "benchmark=none", "rollout.save=all", *reward) == 0
    [row] = rows(tmp_path / "run/metrics.jsonl")
    assert row["reward/exact"] == row["accuracy"]
    assert row["reward/brief"] == -row["completion/length_mean"]
    assert row["reward/mean"] == pytest.approx(row["reward/exact"] + 0.125 * row["reward/brief"])
    for record in rows(tmp_path / "run/rollouts/step_000001.jsonl"):
        parts = record["reward_parts"]
        assert record["reward"] == parts["exact"] + 0.125 * parts["brief"]
        assert parts == {"exact": float(record["correct"]), "brief": -len(record["token_ids"])}
    assert main(["train", f"resume={tmp_path / 'run'}", "steps=2"]) == 0
    counters = json.loads((tmp_path / "run/checkpoints/step_000002/state/counters.json").read_text())
    assert [one["least"] for one in counters["scores_given"]] == [
        min(
            record["reward_parts"]["brief"]
            for step in (1, 2)
            for record in rows(tmp_path / f"run/rollouts/step_00000{step}.jsonl")
        )
    ]


def test_a_folder_that_holds_a_run_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "run.json").read_bytes()
    assert train(trained, "steps=1") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (trained / "run.json").read_bytes() == before


def test_overwrite_starts_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert train(tmp_path / "run", "steps=1", "benchmark=none", "overwrite=true") == 0
    assert [row["step"] for row in rows(tmp_path / "run/metrics.jsonl")] == [1]


def test_several_gradients_that_are_not_finite_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def score(prompt, completion, answer):\n    return 1e38 * len(set(completion)) ** 2\n")
    code = train(
        tmp_path / "run",
        "steps=6",
        "benchmark=none",
        f"reward.path={reward}:score",
        "algo=grpo",
        "algo.scale_rewards=none",
    )
    assert code == 1
    assert "not finite" in capsys.readouterr().err
    assert list((tmp_path / "run/rollouts").glob("nonfinite_step_*.jsonl"))
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"


def test_a_step_without_signal_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def score(prompt, completion, answer):\n    return 0.0, False\n")
    assert train(tmp_path / "run", "steps=2", "benchmark=none", f"reward.path={reward}:score") == 0
    assert capsys.readouterr().err.count("every group had equal rewards (all wrong)") == 1  # of two such steps
    row = rows(tmp_path / "run/metrics.jsonl")[1]
    assert row["optim/updates"] == 0
    assert row["optim/skipped"] == 1
    assert row["groups/all_wrong"] == row["groups/no_spread"] == 1.0


GRADED = """import time
def last_digit(prompt, completion, answer):
    right = completion[-1:] == answer[-1:]
    return float(right), right
def wrong(prompt, completion, answer):
    return 0.0, False
def partial(prompt, completion, answer):
    return sum(a == b for a, b in zip(completion, answer)) / len(answer), False
def number(prompt, completion, answer):
    return 0.5
def hangs(prompt, completion, answer):
    if completion != answer and sum(map(ord, completion)) % 5 == 0:
        time.sleep(60)
    return (1.0, True) if completion == answer else (-1.0, False)
"""


@pytest.fixture
def graded(tmp_path: Path) -> str:
    """`reward.path=` of a file of reward functions, up to the function's name."""
    (tmp_path / "graded.py").write_text(GRADED)
    return f"reward.path={tmp_path / 'graded.py'}:"


@pytest.mark.parametrize(
    "reward", ["own", *(pytest.param(one, marks=pytest.mark.slow) for one in ("last_digit", "answer_only"))]
)
def test_an_evaluation_in_training_gives_the_number_of_dgpo_eval(tmp_path: Path, graded: str, reward: str) -> None:
    typed = {"last_digit": [f"{graded}last_digit"], "answer_only": ["reward=answer_only"], "own": []}[reward]
    assert train(tmp_path / "run", "steps=1", *typed) == 0
    own = rows(tmp_path / "run/eval.jsonl")[-1]["avg_at_k"]
    for number, again in enumerate(([], typed)):
        folder = tmp_path / f"eval{number}"
        assert main(["eval", f"model.path={tmp_path / 'run'}", f"hydra.run.dir={folder}", *again]) == 0
        assert json.loads((folder / "results.json").read_text())["avg_at_k"] == own
    manifest = json.loads((tmp_path / "run/evals/step_000001/manifest.json").read_text())
    assert manifest["grader"] == {"last_digit": "function", "answer_only": "answer_only", "own": "exact"}[reward]
    assert ("sha256" in manifest.get("reward", {})) == (reward == "last_digit")


def test_a_benchmark_can_be_graded_by_another_reward_than_training(tmp_path: Path, graded: str) -> None:
    assert train(tmp_path / "run", "steps=1", f"{graded}wrong", "benchmark.reward=exact") == 0
    assert rows(tmp_path / "run/metrics.jsonl")[0]["accuracy"] == 0.0
    assert rows(tmp_path / "run/eval.jsonl")[-1]["avg_at_k"]["value"] > 0


def test_a_number_alone_is_refused_at_the_start_where_right_and_wrong_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], graded: str
) -> None:
    overrides = ["benchmark=none", "algo=dapo", "algo.dynamic_sampling.by=correct"]
    errors = refused(capsys, tmp_path / "run", 2, f"{graded}number", *overrides)
    assert errors.count("error: ") == 1
    assert "goes by right and wrong, and " in errors
    assert "algo.dynamic_sampling.by=spread" in errors


def test_an_evaluation_by_a_number_alone_gives_its_mean(tmp_path: Path, graded: str) -> None:
    assert train(tmp_path / "run", f"{graded}number", "steps=1") == 0
    for row in rows(tmp_path / "run" / "eval.jsonl"):
        assert row["avg_at_k"] is None
        assert row["reward"] == {"mean": 0.5, "se_total": 0.0, "ci95": None}  # the same for each: no interval


def test_a_changed_reward_file_does_not_continue_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], graded: str
) -> None:
    folder = tmp_path / "run"
    assert train(folder, "steps=1", f"{graded}last_digit") == 0
    (folder / "eval.jsonl").write_text("")  # killed after its samples, before its row
    file = tmp_path / "graded.py"
    file.write_text(file.read_text() + "# another\n")
    capsys.readouterr()
    assert main(["train", f"resume={folder}"]) == 0
    assert "reward.sha256" in capsys.readouterr().err
    assert len(rows(folder / "evals/before_resume_step_000001/samples.jsonl")) == 16
    assert [row["step"] for row in rows(folder / "eval.jsonl")] == [1]


def test_partial_credit_trains_without_exhausting_refills_and_is_not_called_all_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], graded: str
) -> None:
    assert train(tmp_path / "run", "steps=1", "benchmark=none", "algo=dapo", f"{graded}partial") == 0
    row = rows(tmp_path / "run/metrics.jsonl")[0]
    assert (row["groups/all_wrong"], row["optim/updates"], row["samples/trained"]) == (1.0, 1, 16)
    assert row["groups/refills"] == 1  # one of four groups has equal scores
    assert row["groups/no_spread"] < 0.5
    assert "wrong" not in capsys.readouterr().err
    by_answers = ["algo.dynamic_sampling.by=correct", "algo.dynamic_sampling.max_refills=1"]
    assert train(tmp_path / "dapo", "steps=1", "benchmark=none", "algo=dapo", f"{graded}partial", *by_answers) == 0
    row = rows(tmp_path / "dapo/metrics.jsonl")[0]
    assert (row["groups/refills"], row["optim/updates"]) == (1, 0)


def test_a_constant_number_is_neither_right_nor_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], graded: str
) -> None:
    assert train(tmp_path / "run", "steps=1", "benchmark=none", f"{graded}number") == 0
    said = capsys.readouterr().err
    assert "every group had equal rewards, so" in said
    assert "all right" not in said
    row = rows(tmp_path / "run/metrics.jsonl")[0]
    assert (row["groups/no_spread"], row["groups/all_correct"], row["groups/all_wrong"]) == (1.0, None, None)


def test_hanging_does_not_pay_and_the_least_score_lies_in_the_checkpoint(tmp_path: Path, graded: str) -> None:
    overrides = ["benchmark=none", "reward.timeout_seconds=0.4", f"{graded}hangs"]
    assert train(tmp_path / "run", "steps=1", *overrides) == 0
    found = rows(tmp_path / "run/rollouts/step_000001.jsonl")
    late = [record for record in found if record["error"] == "timeout"]
    assert rows(tmp_path / "run/metrics.jsonl")[0]["reward/timeouts"] == len(late) > 0
    assert {(record["reward"], record["correct"]) for record in late} == {(-1.0, False)}
    counters = json.loads((tmp_path / "run/checkpoints/step_000001/state/counters.json").read_text())
    assert counters["scores_given"] == [{"least": -1.0, "has_worse": True, "says_right": True}]
    assert main(["train", f"resume={tmp_path / 'run'}", "steps=2"]) == 0


@pytest.mark.parametrize("gating", ["uniform", "calibrated", "top_entropy"])
def test_dynamic_sampling_that_keeps_no_group_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gating: str
) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def score(prompt, completion, answer):\n    return 0.0, False\n")
    overrides = ["algo=dapo", f"gating={gating}", "algo.dynamic_sampling.max_refills=1", f"reward.path={reward}:score"]
    overrides.append("algo.overlong.enabled=false")
    assert train(tmp_path / "run", "steps=2", "benchmark=none", *overrides) == 0
    errors = capsys.readouterr().err
    assert "kept 0 of 4 groups after 1 refills" in errors
    assert "dynamic sampling kept no group (all wrong)" in errors
    for row in rows(tmp_path / "run/metrics.jsonl"):
        assert row["samples/trained"] == row["optim/updates"] == 0
        assert row["groups/refills"] == 1


@pytest.mark.shared_data
def test_real_text_on_a_real_vocabulary(tmp_path: Path, data_folder: Path) -> None:
    model = save_random_model(tmp_path / "wide", vocab_size=151_936, max_context=1024)
    common = [f"model.path={model}", "strategy.threads=2", "logger=none"]
    folder = tmp_path / "gsm8k"
    code = main(
        [
            "train",
            f"hydra.run.dir={folder}",
            *common,
            f"data.path={data_folder / 'gsm8k_test.jsonl'}",
            "steps=3",
            "rollout.prompts_per_step=2",
            "rollout.group_size=2",
            "rollout.max_completion_tokens=16",
        ]
    )
    assert code == 0
    assert [row["step"] for row in rows(folder / "metrics.jsonl")] == [1, 2, 3]
    folder = tmp_path / "math500"
    code = main(
        [
            "eval",
            f"hydra.run.dir={folder}",
            *common[:2],
            "benchmark=math500",
            f"benchmark.path={data_folder / 'math500.jsonl'}",
            "benchmark.limit=20",
            "benchmark.k=1",
            "benchmark.pass_at=[1]",
            "benchmark.max_tokens=16",
        ]
    )
    assert code == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["n_problems"] == 20
    assert results["avg_at_k"]["k"] == 1
    assert len(rows(folder / "samples.jsonl")) == 20
