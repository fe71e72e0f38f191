"""A grader's trial: what it is shown, and what becomes of its failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dgpo_cli.errors import ConfigError
from dgpo_cli.rewards.function import FunctionGrader
from dgpo_cli.rewards.strings import ExactGrader
from dgpo_cli.rewards.trial import columns_asked, try_grader
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, Problem, Prompt, Verdict

PROMPT = Prompt(Problem(0, "a", (("user", "q"),), "the gold", {"level": 0.5}), "template: q", (1,))


@pytest.fixture
def grader(tmp_path: Path) -> Iterator[FunctionGrader]:
    (tmp_path / "reward.py").write_text(
        "def score(completion, level, completion_tokens):\n    return level - completion_tokens, True\n"
    )
    made = FunctionGrader(f"{tmp_path / 'reward.py'}:score", timeout_seconds=20)
    yield made
    made.close()


def test_the_gold_stands_for_a_completion_and_its_words_for_tokens(grader: FunctionGrader) -> None:
    assert try_grader(grader, PROMPT) == Verdict(0.5 - 2, True)


def test_columns_are_those_of_the_function(grader: FunctionGrader) -> None:
    assert columns_asked(grader) == ColumnsAsked(required=frozenset({"level"}))
    assert columns_asked(ExactGrader()) == NO_COLUMNS


def test_a_function_that_cannot_be_loaded_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("import nothing_of_this_name\n")
    broken = FunctionGrader(f"{tmp_path / 'reward.py'}:score", timeout_seconds=20)
    with pytest.raises(ConfigError, match=r"nothing_of_this_name.*reward\.py line 1"):
        columns_asked(broken)
    broken.close()
