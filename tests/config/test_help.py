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


def test_an_option_is_answered_with_what_it_sets() -> None:
    text = help_text.answer(["algo=dapo"])
    assert text.startswith("algo=dapo: DAPO, Decoupled Clip")
    assert "brings, if nothing else is chosen: gating=uniform" in text
    assert "  algo.clip_high=0.28  " in text
    assert "algo.name" not in text
    text = help_text.answer(["model=qwen7b"])
    assert "  model.path=Qwen/Qwen2.5-7B  " in text
    assert "  model.stop_tokens=[<|im_end|>]  " in text
    assert help_text.answer(["reference=tiny"]).endswith("sets\n  reference.path=bundled:tiny")
    assert "lora:\n    rank: 16" in help_text.answer(["recipe=lora_tiny"])


@pytest.mark.parametrize("group", [group for group in catalogue.groups("train") if group != catalogue.RECIPES])
def test_every_option_has_an_answer(group: str) -> None:
    for option in catalogue.options(group):
        lines = help_text.answer([f"{group}={option}"]).splitlines()
        assert lines[0].startswith(f"{group}={option}: ")
        assert max(map(len, lines)) <= 120


def test_an_unknown_option_names_the_nearest() -> None:
    for word, hint in (("algo=dpao", "did you mean algo=dapo?"), ("recipe=x", "options: credit_against")):
        with pytest.raises(UsageError) as raised:
            help_text.answer([word])
        assert hint in raised.value.problems[0].hint


def test_every_key_is_listed_once_with_type_default_and_commands() -> None:
    lines = help_text.answer(["keys"]).splitlines()
    listed = [line.split()[0] for line in lines[2:]]
    known = {name for command in COMMANDS for name, key in catalogue.keys(command).items() if not key.is_section}
    assert sorted(listed) == sorted(known)
    assert f"{len(known)} keys" in lines[0]
    [row] = [line for line in lines if line.startswith("optim.lr ")]
    assert row.split(maxsplit=1)[1] == "a number  [5.0e-4 with model=tiny, else 1e-06]  train"
    [row] = [line for line in lines if line.startswith("rollout.group_size ")]
    assert row.split(maxsplit=1)[1].startswith("a whole number  [8 with model=tiny, else 16 (train) | 4 (rollout)]")


def test_the_end_of_a_commands_help_says_where_all_keys_are() -> None:
    known = [key for key in catalogue.keys("train").values() if not key.is_section]
    assert f"dgpo help keys lists all {len(known)} keys" in help_text.command_help("train")
