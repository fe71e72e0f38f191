"""`dgpo rollout rollouts=FILE` of other trainers, the real command: read, scored, shown and exported."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_factory import trace, trl_rows, verl_rows, write_lines, write_trl
from model_factory import save_random_model
from record_factory import page_data
from said import problem_lines
from transformers import AutoModelForCausalLM, AutoTokenizer

from dgpo_cli.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return save_random_model(folder / "policy", seed=1, scale=0.3), save_random_model(folder / "reference", seed=2)


def rollout(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    assert main(["rollout", f"hydra.run.dir={folder}", *overrides]) == 0
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def score(folder: Path, file: Path, models: tuple[Path, Path], *overrides: str) -> list[dict[str, Any]]:
    policy, reference = models
    return rollout(folder, f"rollouts={file}", f"model.path={policy}", f"reference.path={reference}", *overrides)


def test_a_dump_of_verl_is_scored_as_plain_transformers_would(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, export = write_lines(tmp_path / "4.jsonl", verl_rows()), tmp_path / "weights.npz"
    records = score(
        tmp_path / "out", file, models, "gating=paper", "gating.temperature=0.01", f"export={export}", "report=true"
    )
    said = capsys.readouterr().err
    assert "4 rollouts of 2 groups, written by verl; 3 have a reward; advantages: computed from the rewards" in said
    assert "0 of them decode to another text" in said
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    policy, reference = (AutoModelForCausalLM.from_pretrained(path).double() for path in models)
    for record, row in zip(records, verl_rows(), strict=True):
        prompt, ids = record["prompt_token_ids"], record["token_ids"]
        assert prompt == tokenizer(row["input"], add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            p, q = (
                torch.log_softmax(model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1], -1)
                for model in (policy, reference)
            )
        distance = ((p / 2).exp() - (q / 2).exp()).square().sum(1) / 2
        value = distance * -(p.exp() * p).sum(1) / math.log(p.shape[1])
        credit = torch.softmax(value / 0.01, 0) * len(ids)
        assert record["logprobs"] == pytest.approx(p.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist(), abs=1e-4)
        assert record["hellinger"] == pytest.approx(distance.tolist(), abs=5e-6)
        assert record["credit"] == pytest.approx(credit.tolist(), abs=1e-3)
    a = 0.5 / (0.5**0.5 + 1e-4)  # rewards 1 and 0: mean 1/2, std 1 / sqrt 2
    assert [record["advantage"] for record in records] == [pytest.approx(a), None, pytest.approx(-a), None]
    assert [record["prompt_id"] for record in records] == ["4/0", "4/1", "4/0", "4/1"]
    assert [entry["tokens"] for entry in page_data((tmp_path / "out/report.html").read_text())["rollouts"]] == [
        len(record["tokens"]) for record in records
    ]
    assert f"export: {export}: the weights of 4 rollouts by paper temperature=0.01" in said
    read_back(export, records)


def read_back(export: Path, records: list[dict[str, Any]]) -> None:
    """By the lines of numpy in the documentation, which print what they find for one rollout."""
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / "rollouts.md").read_text(), re.S)
    assert len(code.splitlines()) <= 10
    found: dict[str, Any] = {}
    exec(code.replace("weights.npz", str(export)), found)
    assert (
        found["weights"].shape == found["advantages"].shape == (4, max(len(record["token_ids"]) for record in records))
    )
    for row, record in enumerate(records):
        length = len(record["token_ids"])
        assert found["weights"][row, :length] == pytest.approx(record["credit"], rel=1e-6)
        assert not found["weights"][row, length:].any()
        assert np.isnan(found["advantages"][row, :length]).all() == (record["advantage"] is None)
        assert found["row_of"][record["prompt_id"], record["sample"]] == row


def test_what_was_exported_once_comes_again_from_the_stored_records(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines(tmp_path / "4.jsonl", verl_rows())
    first, again = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    score(tmp_path / "out", file, models, "gating=hellinger", f"export={first}")
    rollout(tmp_path / "again", f"rollouts={tmp_path / 'out/rollouts.jsonl'}", f"export={again}")
    assert first.read_bytes() == again.read_bytes()
    capsys.readouterr()
    assert (
        main(["rollout", f"rollouts={file}", f"hydra.run.dir={tmp_path / 'no'}", f"export={again}", "gating=uniform"])
        == 2
    )
    assert "exists already" in problem_lines(capsys.readouterr().err)[0]


def test_trl_keeps_the_advantages_that_it_trained_on(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_trl(tmp_path / "completions_00010.parquet")
    records = score(tmp_path / "out", file, models, "gating=hellinger")
    assert [record["advantage"] for record in records] == [row["advantage"] for row in trl_rows()]
    assert [record["reward"] for record in records] == [1.5, 0.0]
    assert records[0]["reward_parts"] == {"right": 1.0, "brief": 0.5}
    assert records[0]["prompt"] == "Be brief.\n\n1 + 1 ="  # a tokenizer without a chat template
    assert all(record["credit"] for record in records)
    assert "written by TRL; 2 have a reward; advantages: those of the file" in capsys.readouterr().err


def test_a_trace_of_prime_rl_is_scored_by_its_own_ids(models: tuple[Path, Path], tmp_path: Path) -> None:
    file = write_lines(tmp_path / "train_rollouts.jsonl", [trace(), trace("3", reward=0.0)])
    records = score(tmp_path / "out", file, models, "gating=surprisal")
    assert [record["token_ids"] for record in records] == [[8, 9], [8, 9]]
    assert records[0]["engine_logprobs"] == [-0.5, -0.25]
    assert [record["reward"] for record in records] == [2.0, 0.0]


def test_without_a_model_the_file_is_shown_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_lines(tmp_path / "4.jsonl", verl_rows())
    records = rollout(tmp_path / "out", f"rollouts={file}", "report=true")
    assert "no credit without a model: model.path=MODEL reference.path=MODEL scores them" in capsys.readouterr().err
    assert [record["tokens"] for record in records] == [[row["output"]] for row in verl_rows()]
    assert [record["credit"] for record in records] == [None] * 4
    page = page_data((tmp_path / "out/report.html").read_text())
    assert [entry["counted"] for entry in page["rollouts"]] == [0] * 4


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["reference=tiny"], "no model is named"),
        (["gating=paper"], "no rollout in it was scored"),
        (["model=tiny", "rollout.group_size=3"], "stored rollouts are read"),
        (["model=tiny", "data=gsm8k"], "stored rollouts are read"),
        (["model=tiny", "export=w.npz"], "gating=paper needs a reference"),
        (["model=tiny", "gating=uniform", "export=w.csv"], "cannot write 'w.csv' by its ending"),
        (["gating=uniform", "export=w.npz"], "has no tokens without a model"),
    ],
)
def test_what_cannot_be_done_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    file = write_lines(tmp_path / "4.jsonl", verl_rows())
    assert main(["rollout", f"rollouts={file}", f"hydra.run.dir={tmp_path / 'out'}", *overrides]) == 2
    [error, *_] = problem_lines(capsys.readouterr().err)
    assert said in error


def test_a_file_of_no_known_form_is_one_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"question": "1"}])
    assert main(["rollout", f"rollouts={file}", f"hydra.run.dir={tmp_path / 'out'}"]) == 2
    error, hint = problem_lines(capsys.readouterr().err)
    assert "no known form: line 1 has the fields question" in error
    assert "looked for dgpo (tokens); verl (input+output); prime-rl (nodes or traces or" in hint
