"""`dgpo train`, `eval` and `rollout` with engine=vllm: the real commands, on real servers."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest
from commands.test_train import quick, rows, same_run, start, train, wait_for_rows, without_clocks

from dgpo_cli.cli import main


def of(url: str) -> list[str]:
    return ["engine=vllm", f"engine.urls=[{url}]"]


def test_training_draws_each_step_by_the_weights_before_it(vllm_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(folder, *of(vllm_url), "steps=2", "rollout.save=all", "optim.lr=1e-3") == 0
    metrics = rows(folder / "metrics.jsonl")
    for row in metrics:
        assert 0 < row["engine/logprob_gap_max"] < 2e-4
        assert row["engine/probe_gap"] < 1e-3
        assert row["engine/sync_bytes"] == metrics[0]["engine/sync_bytes"] > 0
        assert row["engine/correction_ess"] == pytest.approx(1.0)
    steps = [{row["policy_step"] for row in rows(folder / f"rollouts/step_00000{step}.jsonl")} for step in (1, 2)]
    assert steps == [{0}, {1}]
    assert [row["step"] for row in rows(folder / "eval.jsonl")] == [0, 2]


def test_two_processes_train_on_one_server_as_one_does(vllm_url: str, tmp_path: Path) -> None:
    common = [*of(vllm_url), "steps=2", "optim.lr=1e-3", "benchmark=none"]
    assert train(tmp_path / "one", *common) == 0
    assert train(tmp_path / "two", *common, "strategy=ddp", "strategy.num_processes=2") == 0
    one, two = (rows(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for alone, together in zip(one, two, strict=True):
        assert together["tokens/generated"] == alone["tokens/generated"]
        assert together["loss"] == pytest.approx(alone["loss"], abs=1e-4)


@pytest.mark.slow  # starts three servers
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    settings = ["engine=vllm", "steps=4", "checkpoint.every=1", "benchmark=none"]
    assert train(tmp_path / "whole", *settings) == 0
    killed = tmp_path / "killed"
    process = start(killed, *quick(*settings), f"hydra.run.dir={killed}")
    wait_for_rows(killed, process, 2, seconds=400.0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert main(["train", f"resume={killed}"]) == 0
    same_run(tmp_path / "whole", killed)


@pytest.mark.slow  # starts two servers
def test_a_server_that_is_killed_is_started_anew_and_the_run_draws_the_same(tmp_path: Path) -> None:
    settings = ["engine=vllm", "steps=4", "benchmark=none"]
    assert train(tmp_path / "whole", *settings) == 0
    hit = tmp_path / "hit"
    process = start(hit, *quick(*settings), f"hydra.run.dir={hit}")
    wait_for_rows(hit, process, 1, seconds=400.0)
    servers = [one for one in psutil.Process(process.pid).children() if "vllm" in " ".join(one.cmdline())]
    assert servers
    for server in servers:
        server.kill()
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "started anew" in said
    clocked = ("engine/sync_bytes",)  # what was pushed once more
    left, right = (
        [{key: value for key, value in without_clocks(row).items() if key not in clocked} for row in rows(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", hit / "metrics.jsonl")
    )
    assert left == right


@pytest.mark.slow  # starts three servers
def test_an_evaluation_that_was_killed_is_continued(tmp_path: Path) -> None:
    def evaluate(folder: Path, k: int) -> None:
        options = ["engine=vllm", "benchmark=digit_chain", "benchmark.limit=8", f"benchmark.k={k}"]
        assert main(["eval", f"hydra.run.dir={folder}", *options]) == 0

    evaluate(tmp_path / "whole", 4)
    evaluate(tmp_path / "parts", 2)
    evaluate(tmp_path / "parts", 4)
    whole, parts = ((tmp_path / name / "samples.jsonl").read_text() for name in ("whole", "parts"))
    assert whole == parts
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    assert manifest["engine"] == "vllm"
    assert manifest["model"]["weights_sha256"]


@pytest.mark.slow  # starts a server
def test_rollout_shows_what_a_server_drew(tmp_path: Path) -> None:
    options = ["engine=vllm", "limit=2", "rollout.group_size=2", "reference=none"]
    assert main(["rollout", f"hydra.run.dir={tmp_path}", *options]) == 0
    found = rows(tmp_path / "rollouts.jsonl")
    assert len(found) == 4


@pytest.mark.slow  # starts two servers
def test_servers_that_take_turns_with_the_trainer_draw_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's CPU build takes the calls of `engine.colocated`, pauses and goes on, but gives back no memory."""
    monkeypatch.setattr("dgpo_cli.commands.train.check_gpus_to_share", lambda config: None)
    settings = ["engine=vllm", "steps=3", "benchmark=none", "optim.lr=1e-3"]
    assert train(tmp_path / "apart", *settings) == 0
    assert train(tmp_path / "turns", *settings, "engine.colocated=true") == 0
    apart, turns = (rows(tmp_path / name / "metrics.jsonl") for name in ("apart", "turns"))
    assert [without_clocks(row) for row in turns] == [without_clocks(row) for row in apart]
    assert all(row["engine/turn_seconds"] > 0 for row in turns)
