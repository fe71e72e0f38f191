"""Whose rollouts a file holds, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgpo_cli.config.rollout_files import is_of_others, trainer_of


@pytest.mark.parametrize(
    ("fields", "trainer"),
    [
        (["input", "output", "score"], "verl"),
        (["step", "prompt", "completion", "advantage"], "TRL"),
        (["nodes", "rewards"], "prime-rl"),
        (["traces"], "prime-rl"),
        (["example_id", "prompt", "completion"], "prime-rl"),
        (["prompt", "completion"], None),
        (["step", "prompt", "completion", "tokens"], None),
    ],
)
def test_a_trainer_is_known_by_its_fields(fields: list[str], trainer: str | None) -> None:
    assert trainer_of(fields) == trainer


def test_only_a_file_that_is_there_and_can_be_read_is_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert not is_of_others(None)
    assert not is_of_others(str(path))
    for content, expected in (("", False), ("{", False), ("[1]", False), ('\n{"input": 1, "output": 2}\n', True)):
        path.write_text(content)
        assert is_of_others(str(path)) is expected
