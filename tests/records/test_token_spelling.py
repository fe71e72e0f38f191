"""How tokens are spelled: every one visible, pieces of characters as their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dgpo_cli.records.token_spelling import token_speller


@pytest.fixture(scope="module")
def tokenizer(random_model: Path) -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(random_model)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def test_pieces_of_a_character_are_spelled_as_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    spell = token_speller(tokenizer)
    ids = tokenizer("€x")["input_ids"]  # E2 82 AC: three byte tokens, as no merge was learned
    assert [spell(token) for token in ids] == ["<0xE2>", "<0x82>", "<0xAC>", "x"]
    assert tokenizer.decode(ids[:1]) == "\ufffd"  # what it would be otherwise


def test_ids_that_the_tokenizer_does_not_know_are_named(tokenizer: PreTrainedTokenizerFast) -> None:
    spell = token_speller(tokenizer)
    assert spell(len(tokenizer)) == f"<id:{len(tokenizer)}>"
    assert spell(511) == "<id:511>"


def test_sentencepiece_tokens_keep_their_space_and_their_bytes() -> None:
    words = ["<unk>", "\u2581the", "re", "<0xE2>", "\ufffd"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
    spell = token_speller(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert [spell(token) for token in range(1, 4)] == [" the", "re", "<0xE2>"]
