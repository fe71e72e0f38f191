"""Help: one screen a command, and an answer for every key."""

import pytest

from dgpo_cli.config import help as help_text
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.errors import UsageError


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_its_groups_options_and_most_used_keys_on_one_screen(command: str) -> None:
    text = help_text.command_help(command)
    lines = text.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 120
    for group in catalogue.groups(command):
        assert all(option in text for option in catalogue.options(group))
    assert all(name in text for name in help_text.MOST_USED[command])
    assert command == "compare" or len(help_text.MOST_USED[command]) == 10


def test_a_key_is_answered_with_type_default_meaning_and_unit() -> None:
    assert help_text.answer(["rollout.max_completion_tokens"]).splitlines() == [
        "rollout.max_completion_tokens: longest completion, stop token included",
        "  type     a whole number",
        "  default  40 with model=tiny, else 2048",
        "  unit     tokens",
        "  used by  dgpo train, dgpo rollout",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_has_an_answer(command: str) -> None:
    for name in catalogue.keys(command):
        assert help_text.answer([name]).startswith((f"{name}: ", f"dgpo {name}: "))


def test_a_group_is_answered_with_its_options() -> None:
    text = help_text.answer(["gating"])
    assert "gating=calibrated  " in text
    assert "gating.noise_gate" in text


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UsageError) as raised:
        help_text.answer(["optim.lrr"])
    assert "did you mean optim.lr?" in raised.value.problems[0].hint


def test_a_default_that_differs_by_command_is_shown_for_each() -> None:
    text = help_text.answer(["rollout.group_size"])
    assert "8 with model=tiny, else 16 (dgpo train)" in text
    assert "4 (dgpo rollout)" in text
