"""Which rows of the data a command reads: those that are trained on, or every one at its place."""

from __future__ import annotations

import json
from pathlib import Path

from dgpo_cli.commands.data_rows import data_rows
from dgpo_cli.config.groups import DataConfig


def of(tmp_path: Path, **settings: object) -> DataConfig:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"{number % 20} + 1 =", "answer": str(number % 20 + 1)} for number in range(21)
    ]  # the last again
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(path=str(file), prompt_key="prompt", answer_key="answer", **settings)  # type: ignore[arg-type]


def test_rows_that_training_leaves_out_are_left_out_unless_all_are_wanted(tmp_path: Path) -> None:
    data = of(tmp_path, deduplicate=True, validation_fraction=0.3)
    trained = [problem.index for problem in data_rows(data, seed=0).problems]
    assert 0 < len(trained) < 20
    assert 20 not in trained
    assert [problem.index for problem in data_rows(data, seed=0, whole=True).problems] == list(range(21))


def test_a_limit_is_for_what_is_trained_on(tmp_path: Path) -> None:
    data = of(tmp_path, limit=5)
    assert len(data_rows(data, seed=0).problems) == 5
    assert len(data_rows(data, seed=0, whole=True).problems) == 21
