"""Completions of other trainers in a model's tokens: ids as they are, texts tokenised again, with what was changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from foreign_factory import trace, verl_rows, write_lines
from model_factory import byte_level_tokenizer

from dgpo_cli.errors import DataError
from dgpo_cli.records.foreign import ForeignFile, ForeignRollout, read_foreign
from dgpo_cli.records.retokenised import places, retokenised


def model(tokenizer: Any = None, *, max_context: int | None = 64) -> Any:
    """What of a model is asked: its tokenizer and its sizes."""
    return SimpleNamespace(tokenizer=tokenizer or byte_level_tokenizer(), max_context=max_context, embedded_ids=512)


def test_texts_decode_to_themselves_and_prompts_are_numbered_within_their_step(tmp_path: Path) -> None:
    foreign = read_foreign(write_lines(tmp_path / "4.jsonl", verl_rows()))
    used = model()
    found = retokenised(foreign, used)
    assert [used.tokenizer.decode(one.token_ids) for one in found.rollouts] == [row["output"] for row in verl_rows()]
    assert [one.request.prompt.text for one in found.rollouts] == [row["input"] for row in verl_rows()]
    assert places(foreign) == [("4/0", 0, 0), ("4/1", 1, 0), ("4/0", 0, 1), ("4/1", 1, 1)]
    texts, prompts = found.notes
    assert "4 completions are texts, tokenised again" in texts
    assert texts.endswith("0 of them decode to another text")
    assert "verl writes prompts without their special tokens" in prompts


def test_a_text_that_the_tokenizer_changes_is_counted() -> None:
    from tokenizers import normalizers

    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    rollouts = [ForeignRollout("a", "the Answer"), ForeignRollout("a", "42")]
    found = retokenised(ForeignFile("f", "TRL", rollouts, {}), model(tokenizer))
    assert found.notes[0].endswith("1 of them decode to another text")


def test_ids_of_the_file_are_taken_as_they_are(tmp_path: Path) -> None:
    foreign = read_foreign(write_lines(tmp_path / "a.jsonl", [trace()]))
    [one] = retokenised(foreign, model()).rollouts
    assert one.request.prompt.token_ids == (5, 6, 7)
    assert one.token_ids == (8, 9)
    assert one.logprobs == (-0.5, -0.25)
    assert retokenised(foreign, model()).notes == []


def test_ids_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    foreign = read_foreign(write_lines(tmp_path / "a.jsonl", [trace()]))
    small: Any = SimpleNamespace(**(vars(model()) | {"embedded_ids": 9}))
    with pytest.raises(DataError, match="rollout 1 has token 9, and the model embeds 9"):
        retokenised(foreign, small)


def test_turns_go_through_the_chat_template() -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    rollouts = [ForeignRollout((("user", "1 + 1"),), "2")]
    [one] = retokenised(ForeignFile("f", "TRL", rollouts, {}), model(tokenizer)).rollouts
    assert one.request.prompt.text == "[user]1 + 1[assistant]"
    assert tokenizer.decode(one.request.prompt.token_ids) == one.request.prompt.text


def test_what_cannot_be_scored_is_left_out_and_counted() -> None:
    rollouts = [ForeignRollout("a", text) for text in ("", "42", "42 " * 90)]
    foreign = ForeignFile("f", "TRL", rollouts, {"of several turns": 2})
    found = retokenised(foreign, model())
    assert found.rows == [1]
    assert found.notes[:3] == [
        "note: f: left out: 2 of several turns",
        "note: f: left out: 1 without a token",
        "note: f: left out: 1 longer than the model's context of 64",
    ]
    with pytest.raises(DataError, match="no rollout that the model can score"):
        retokenised(dataclasses.replace(foreign, rollouts=rollouts[:1]), model())
