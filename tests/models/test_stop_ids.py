"""Which ids end a completion, and stops that the model cannot draw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizer_factory import tokenizer_of

from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.models.stop_ids import check_stops, stop_token_ids


@pytest.mark.parametrize(
    ("configured", "chat", "expected"),
    [
        (None, False, {1}),
        (7, False, {1, 7}),
        ([7, 9], False, {1, 7, 9}),
        ([7], True, {1, 3, 7}),
    ],
)
def test_stop_ids_are_those_of_tokenizer_configuration_and_end_of_turn(
    configured: Any, chat: bool, expected: set[int]
) -> None:
    generation_config = SimpleNamespace(eos_token_id=configured)
    assert stop_token_ids(tokenizer_of(adds_bos=False), generation_config, chat) == expected


def test_a_template_without_an_end_of_turn_adds_no_stop_id() -> None:
    tokenizer = tokenizer_of(adds_bos=False)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert stop_token_ids(tokenizer, None, True) == {1}


def test_tokens_named_beside_them_end_a_completion_too() -> None:
    tokenizer = tokenizer_of(adds_bos=False)
    newline = tokenizer("\n")["input_ids"][0]
    assert stop_token_ids(tokenizer, None, False, ["\n"]) == {1, newline}
    with pytest.raises(ConfigError, match="'ab' is 2 of this model's"):
        stop_token_ids(tokenizer, None, False, ["ab"])


def test_a_stop_beyond_the_head_is_warned_of_and_refused_if_there_is_no_other() -> None:
    """The tokenizer's eos is id 1."""
    tokenizer = tokenizer_of(adds_bos=False)
    named: dict[str, Any] = {"typed": [], "path": "MODEL", "key": "model.path"}
    assert check_stops(tokenizer, {1, 90}, 91, **named) == []
    [warning] = check_stops(tokenizer, {1, 90}, 90, **named)
    assert "MODEL is to stop at id 90" in warning
    assert "beyond the 90 ids" in warning
    with pytest.raises(DataError, match="no completion would end"):
        check_stops(tokenizer, {90}, 90, **named)
