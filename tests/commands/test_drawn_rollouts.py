"""`dgpo rollout report=true` where no group has right beside wrong: it draws on, or says where there is more to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from page_factory import group
from record_factory import page_data, write_rollouts

from dgpo_cli.cli import main
from dgpo_cli.commands.mixed_steps import where_mixed

REWARD = """
def score(completion, row):
    return row["kind"] == "all" or sum(completion.encode()) % 2 == 0
"""


def draw(
    folder: Path, model: Path, kinds: list[str], *overrides: str
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """The records, the page's notes and the prompts that it shows first."""
    rows = [{"prompt": f"{kind} {number}:", "answer": "x", "kind": kind} for number, kind in enumerate(kinds)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    command = ["rollout", f"model.path={model}", f"data.path={folder / 'rows.jsonl'}", "gating=uniform", "report=true"]
    command += [f"reward.path={folder / 'reward.py'}:score", "limit=2", "rollout.group_size=6"]
    assert main([*command, "rollout.max_completion_tokens=4", f"hydra.run.dir={folder / 'out'}", *overrides]) == 0
    records = [json.loads(line) for line in (folder / "out/rollouts.jsonl").read_text().splitlines()]
    data = page_data((folder / "out/report.html").read_text())
    return records, data["notes"], [prompt["text"] for prompt in data["prompts"]]


def test_it_draws_further_prompts_until_a_group_has_both(
    tmp_path: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, notes, prompts = draw(tmp_path, random_model, ["all", "all", "all", "all", "half", "half", "half"])
    assert prompts[:2] == ["all 0:", "all 1:"]
    assert set(prompts[2:]) <= {"half 4:", "half 5:"}  # those of the second round that have both
    assert len(prompts) > 2
    assert len(records) == 6 * len(prompts)
    for start in range(12, len(records), 6):
        assert {record["correct"] for record in records[start : start + 6]} == {True, False}
        assert sum(record["advantage"] for record in records[start : start + 6]) == pytest.approx(0, abs=1e-4)
    [note] = notes
    assert note.startswith("The first 2 groups have no right answers beside wrong ones. 4 more were drawn, of which ")
    assert f"note: {note}" in capsys.readouterr().err


def test_what_has_both_at_once_is_drawn_once(tmp_path: Path, random_model: Path) -> None:
    _, notes, prompts = draw(tmp_path, random_model, ["half", "half", "all"])
    assert prompts == ["half 0:", "half 1:"]
    assert notes == []


def test_it_stops_after_so_many_rounds_and_says_why(
    tmp_path: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, notes, _ = draw(tmp_path, random_model, ["all"] * 3, "mixed_rounds=2")  # the third prompt, then the first
    assert len(records) == 12
    assert notes[0].startswith("None of 6 groups of 6 has right answers beside wrong ones: 36 of 36 completions are")
    assert "note: None of 6 groups" in capsys.readouterr().err
    (tmp_path / "off").mkdir()
    assert draw(tmp_path / "off", random_model, ["all"] * 3, "mixed_rounds=0")[1] == []


def test_the_newest_stored_step_with_both_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "rollouts").mkdir(parents=True)
    steps = {
        1: group("a", ("x|y", True), ("x|z", False)),
        10: [*group("b", ("x|y", True), ("x|z", False)), *group("c", ("x|y", True), ("x|z", False))],
        20: group("d", ("x|y", True), ("x|y", True), signal=False),
    }
    for step, records in steps.items():
        write_rollouts(run / f"rollouts/step_{step:06d}.jsonl", records)
    for place in (run, run / "checkpoints/step_000020/model"):
        sentence = where_mixed(str(place))
        assert sentence is not None
        assert sentence.startswith("In step 10 of its training 2 of its groups had both: dgpo rollout rollouts=")
        assert "step_000010.jsonl report=true" in sentence
    for step in (1, 10):
        (run / f"rollouts/step_{step:06d}.jsonl").unlink()
    assert where_mixed(str(run)) == "None of the 1 stored steps of its training has any, either."
    assert where_mixed(str(tmp_path / "elsewhere")) is None
    assert where_mixed(None) is None
