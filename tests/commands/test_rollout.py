"""`dgpo rollout`, the real command: its records against a float64 recomputation with plain transformers logits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from model_factory import save_random_model
from record_factory import page_credit, page_data
from said import problem_lines
from transformers import AutoModelForCausalLM

from dgpo_cli.cli import main

COMMON = ["limit=2", "rollout.group_size=3"]


def rollout(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    assert main(["rollout", f"hydra.run.dir={folder}", *COMMON, *overrides]) == 0
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def log_softmax(model: torch.nn.Module, record: dict[str, Any], temperature: float) -> torch.Tensor:
    prompt = record["prompt_token_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + record["token_ids"]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, dim=-1)


def test_credit_agrees_with_a_float64_recomputation(tmp_path: Path) -> None:
    policy = save_random_model(tmp_path / "policy", seed=1, scale=0.3)
    reference = save_random_model(tmp_path / "reference", seed=2, scale=0.3)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i} + 1 =", "answer": str(i + 1)}) + "\n" for i in range(2)))
    records = rollout(
        tmp_path / "out",
        f"model.path={policy}",
        f"reference.path={reference}",
        f"data.path={data}",
        "rollout.max_completion_tokens=9",
        "rollout.temperature=0.8",
        "gating=paper",
        "gating.temperature=0.05",
    )
    assert len(records) == 6
    p_model = AutoModelForCausalLM.from_pretrained(policy).double()
    q_model = AutoModelForCausalLM.from_pretrained(reference).double()
    for record in records:
        p, q = log_softmax(p_model, record, 0.8), log_softmax(q_model, record, 0.8)
        chosen = torch.tensor(record["token_ids"])[:, None]
        entropy = -(p.exp() * p).sum(1)
        distance = ((p / 2).exp() - (q / 2).exp()).square().sum(1) / 2
        score = distance * entropy / math.log(p.shape[1])
        credit = torch.softmax(score / 0.05, 0) * len(score)
        for name, expected, tolerance in (
            ("logprobs", p.gather(1, chosen)[:, 0], 1e-4),
            ("ref_logprobs", q.gather(1, chosen)[:, 0], 1e-4),
            ("entropy", entropy, 1e-4),
            ("hellinger", distance, 5e-6),
            ("credit", credit, 1e-4),
        ):
            assert record[name] == pytest.approx(expected.tolist(), abs=tolerance), name
        assert max(record["credit"]) > 1.01


def test_a_model_beside_itself_has_distance_zero_and_credit_one(tmp_path: Path) -> None:
    for record in rollout(tmp_path / "out", "reference=tiny"):
        assert set(record["hellinger"]) == {0.0}
        assert set(record["credit"]) == {1.0}


def test_records_hold_text_tokens_and_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = rollout(tmp_path / "out")
    assert capsys.readouterr().out.splitlines() == (tmp_path / "out/rollouts.jsonl").read_text().splitlines()
    for record in records:
        text = "".join(record["tokens"])
        assert text.startswith(record["completion"])
        assert len(record["logprobs"]) == len(record["token_ids"]) == len(record["tokens"])
        assert record["reward"] == float(record["completion"] == record["gold"])
        assert "credit" not in record
    for start in (0, 3):
        group = records[start : start + 3]
        assert len({record["prompt_id"] for record in group}) == 1
        assert sum(record["advantage"] for record in group) == pytest.approx(0.0, abs=1e-5)


def test_a_reward_function_sees_columns_and_its_parts_are_stored(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "def score(completion, row, completion_tokens):\n"
        "    same = completion == row['completion']\n"
        "    return {'score': 0.5, 'correct': same, 'asked': len(row['prompt']), 'tokens': completion_tokens}\n"
    )
    for record in rollout(tmp_path / "out", f"reward.path={tmp_path / 'reward.py'}:score"):
        assert record["reward"] == 0.5
        assert record["reward_parts"] == {"asked": 26, "tokens": len(record["token_ids"])}


def test_without_a_reference_the_page_shows_the_gatings_that_need_none(tmp_path: Path) -> None:
    records = rollout(tmp_path / "out", "gating=top_entropy", "report=true")
    page = (tmp_path / "out/report.html").read_text()
    assert page_credit(page)["top_entropy"] == [record["credit"] for record in records]
    assert [record["score"] for record in records] == [record["entropy"] for record in records]
    assert max(max(record["credit"]) for record in records) > 1
    data = page_data(page)
    assert [item["label"].partition(" ")[0] for item in data["gatings"]] == ["top_entropy"] * 3  # and its two controls
    assert list(data["signals"]) == ["logprobs", "entropy"]


def test_gatings_asked_for_by_name_are_refused_without_a_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["gating=calibrated", "gatings=[surprisal,top_entropy]", f"model.path={save_random_model(tmp_path / 'm')}"]
    (tmp_path / "m/model.safetensors").unlink()  # and before anything is loaded
    assert main(["rollout", f"hydra.run.dir={tmp_path / 'out'}", *COMMON, *asked, "report=true"]) == 2
    lines = problem_lines(capsys.readouterr().err)
    assert [line.partition(" needs ")[0] for line in lines[::2]] == [
        "error: gating calibrated",
        "error: gating surprisal",
    ]
    assert all("reference=" in line for line in lines[1::2])
    assert not (tmp_path / "out").exists()


def test_without_a_reference_the_usual_gating_is_missed_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout(tmp_path / "out", "limit=1")
    assert "note: no credit by paper: " in capsys.readouterr().err


def test_a_prompt_of_ones_own_is_not_graded(tmp_path: Path) -> None:
    records = rollout(tmp_path / "out", "prompt='9 -5=? +4=? +1=? +1=? -4=?'", "rollout.temperature=0")
    assert {record["prompt"] for record in records} == {"9 -5=? +4=? +1=? +1=? -4=?"}
    assert {record["reward"] for record in records} == {None}
    assert len({record["completion"] for record in records}) == 1


def test_the_same_command_gives_the_same_rollouts(tmp_path: Path) -> None:
    first, second, other = (rollout(tmp_path / name, f"seed={seed}") for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first == second
    assert first != other


def test_rollouts_are_not_overwritten_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout(tmp_path / "out")
    assert main(["rollout", f"hydra.run.dir={tmp_path / 'out'}", *COMMON]) == 2
    assert "exists already" in capsys.readouterr().err
    rollout(tmp_path / "out", "overwrite=true")


def test_another_vocabulary_is_no_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = save_random_model(tmp_path / "other")
    assert main(["rollout", f"hydra.run.dir={tmp_path / 'out'}", *COMMON, f"reference.path={other}"]) == 2
    assert "output ids" in capsys.readouterr().err
