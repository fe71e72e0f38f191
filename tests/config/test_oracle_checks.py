"""An oracle is refused in one line on data whose wrong tokens nobody knows, and says that it is no method."""

from __future__ import annotations

import pytest

from dgpo_cli.config.checks import validate, warnings
from dgpo_cli.config.compose import compose


def problems(command: str, *overrides: str) -> list[str]:
    return [problem.message for problem in validate(compose(command, list(overrides)), command)]


@pytest.mark.parametrize("command", ["train", "rollout"])
def test_an_oracle_needs_data_whose_gold_is_the_only_right_text(command: str) -> None:
    oracle = "gating=oracle_first_error"
    assert problems(command, oracle) == []
    assert problems(command, oracle, "data=gsm8k") == [f"{oracle}: the first wrong token of data=gsm8k is not known"]
    assert problems(command, oracle, "data.answer_key=answer") == [
        f"{oracle}: the first wrong token of data=digit_chain is not known"
    ]
    assert problems(command, "data=gsm8k") == []


def test_a_typed_prompt_has_no_answer_to_read() -> None:
    assert problems("rollout", "gating=oracle_first_error", "prompt=9 -5=?") == [
        "gating=oracle_first_error: the first wrong token of a typed prompt is not known"
    ]


def test_a_gating_that_reads_the_answer_has_to_say_so_by_its_name() -> None:
    typed = ["algo=grpo", "gating.signal=oracle_first_error"]
    assert problems("train", *typed) == [
        "gating.signal=oracle_first_error: it reads the right answer, and gating=uniform does not say so"
    ]
    assert problems("train", *typed, "gating.name=oracle_mine") == []


def test_a_run_by_an_oracle_says_that_it_is_no_method() -> None:
    said = "gating=oracle_first_error reads the right answer: an upper bound on what credit can do, no method"
    assert warnings(compose("train", ["gating=oracle_first_error"]), "train") == [said]
    assert warnings(compose("train", []), "train") == []
