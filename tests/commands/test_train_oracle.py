"""`dgpo train gating=oracle_first_error`, the real command: exact after a kill, and its credit can be had again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.cli import main
from dgpo_cli.data.digit_chain import first_wrong_index
from dgpo_cli.training.metrics import CLOCKED

SETTINGS = ["gating=oracle_first_error", "algo=grpo", "algo.kl_coef=0", "algo.sign=negative", "steps=2"]
QUICK = ["logger=none", "benchmark=none", "rollout.prompts_per_step=4", "rollout.group_size=4", "data.size=64"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run without what the clock decides."""
    rows = lines(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith(CLOCKED)} for row in rows]


def train(folder: Path, *overrides: str) -> None:
    own = ["rollout.save=all", "checkpoint.every=1", "checkpoint.keep=9", f"hydra.run.dir={folder}"]
    assert main(["train", *SETTINGS, *QUICK, *own, *overrides]) == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(folder)
    return folder


def test_the_first_wrong_token_of_each_wrong_completion_has_five_times_the_credit(whole: Path) -> None:
    records = lines(whole / "rollouts/step_000001.jsonl")
    trained = [record for record in records if record["advantage"]]
    assert len(trained) > 3
    for record in trained:
        assert not record["correct"]
        assert record["advantage"] < 0  # algo.sign=negative
        place = first_wrong_index(record["completion"], record["gold"])  # a token is a character here
        count = len(record["tokens"])
        mean = (count + 4) / count
        expected = [(5 if at == place else 1) / mean for at in range(count)]
        assert record["credit"] == pytest.approx(expected, rel=1e-5)
    first = numbers(whole)[0]
    assert first["credit/first_error_known"] == 1.0
    assert first["credit/first_error"] == pytest.approx(first["credit/max"], rel=0.1)
    right_of_mixed = [one for one in records if one["correct"] and not one["advantage"]]
    assert 0 < first["samples/other_sign"] <= len(right_of_mixed) / len(records)


def test_it_resumes_exactly(whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints/step_000002")
    assert main(["train", f"resume={cut}"]) == 0
    assert numbers(cut) == numbers(whole)
    weights = "checkpoints/step_000002/model/model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()


def test_its_credit_comes_again_from_the_stored_file_and_from_no_other(whole: Path, tmp_path: Path) -> None:
    file = whole / "rollouts/step_000001.jsonl"
    assert main(["rollout", f"rollouts={file}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    again = lines(tmp_path / "again/rollouts.jsonl")
    assert [record["credit"] for record in again] == [record["credit"] for record in lines(file)]
    forgotten = tmp_path / "forgotten.jsonl"
    records = [{key: value for key, value in record.items() if key != "first_error"} for record in lines(file)]
    forgotten.write_text("".join(json.dumps(record) + "\n" for record in records))
    asked = [f"rollouts={forgotten}", "gating=oracle_first_error", f"hydra.run.dir={tmp_path / 'none'}"]
    assert main(["rollout", *asked]) != 0


@pytest.mark.slow
def test_two_processes_know_what_one_knows(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "two", "strategy=ddp", "strategy.num_processes=2", "strategy.device=cpu")
    alone, together = numbers(whole)[0], numbers(tmp_path / "two")[0]
    for name in ("credit/first_error_known", "credit/first_error", "credit/ess", "samples/other_sign"):
        assert together[name] == pytest.approx(alone[name], rel=1e-5)
