"""What the commands say while something takes long: each phase of a first step, of an evaluation, of a rollout."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands.test_train import train

from dgpo_cli import terminal
from dgpo_cli.cli import main


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything lasts too long."""
    monkeypatch.setattr(terminal, "PATIENCE", 0.0)


def test_the_first_step_says_what_it_does_and_the_next_ones_have_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "steps=2", "benchmark=none") == 0
    said = capsys.readouterr().err.splitlines()
    first = next(number for number, line in enumerate(said) if line.startswith("step 1/2"))
    for phase in ("step 1: drawing 16 completions ...", "step 1: scoring and updating on 16 completions ..."):
        assert phase in said[:first]
    assert not any(line.startswith("step 2:") for line in said)


def test_evaluations_and_rollouts_say_what_they_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["model=tiny", "benchmark=digit_chain", "benchmark.limit=8"]
    assert main(["eval", *short, f"hydra.run.dir={tmp_path / 'eval'}"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "loading the weights of bundled:tiny ..." in said
    assert "digit_chain: drawing and grading 8 completions ..." in said
    few = ["model=tiny", "limit=2", "rollout.group_size=2", "reference=tiny"]
    assert main(["rollout", *few, f"hydra.run.dir={tmp_path / 'rollout'}"]) == 0
    said = capsys.readouterr().err.splitlines()
    for phase in ("loading the weights of bundled:tiny ...", "drawing 4 completions ...", "scoring 4 completions ..."):
        assert phase in said
