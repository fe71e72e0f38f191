"""The function that `dgpo help reward.path` shows works as it says."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from dgpo_cli.cli import main
from dgpo_cli.rewards.function import FunctionGrader
from dgpo_cli.types import GradeRequest, Verdict


def test_the_function_to_copy_is_a_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "reward.path"]) == 0
    said = capsys.readouterr().out
    code = said.partition("as my_reward.py:\n")[2].partition("\n  dgpo ")[0]
    (tmp_path / "my_reward.py").write_text(textwrap.dedent(code))
    grader = FunctionGrader(f"{tmp_path / 'my_reward.py'}:score", timeout_seconds=20, workers=1)
    verdicts = grader.grade([GradeRequest("2 + 2?", "4", "4"), GradeRequest("2 + 2?", "5" * 500, "4")])
    grader.close()
    assert verdicts == [Verdict(1.1, True, parts={"short": 1.0}), Verdict(0.0, False, parts={"short": 0.0})]


def test_every_name_that_a_function_may_ask_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from dgpo_cli.rewards.arguments import GIVEN

    assert main(["help", "reward.path"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*GIVEN, "prompts", "completions", "reward.weights", "reward.workers"))
