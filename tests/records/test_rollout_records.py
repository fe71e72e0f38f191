"""How tokens are spelled: every one visible, pieces of characters as their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.records.rollout_records import token_speller


@pytest.fixture(scope="module")
def model(random_model: Path) -> LanguageModel:
    return load_model(str(random_model), dtype="float32", device="cpu")


def test_pieces_of_a_character_are_spelled_as_bytes(model: LanguageModel) -> None:
    spell = token_speller(model)
    ids = model.tokenizer("€x")["input_ids"]  # E2 82 AC: three byte tokens, as no merge was learned
    assert [spell(token) for token in ids] == ["<0xE2>", "<0x82>", "<0xAC>", "x"]
    assert model.tokenizer.decode(ids[:1]) == "\ufffd"  # what it would be otherwise


def test_ids_that_the_tokenizer_does_not_know_are_named(model: LanguageModel) -> None:
    spell = token_speller(model)
    assert spell(len(model.tokenizer)) == f"<id:{len(model.tokenizer)}>"
    assert spell(511) == "<id:511>"


def test_sentencepiece_tokens_keep_their_space_and_their_bytes(model: LanguageModel) -> None:
    words = ["<unk>", "\u2581the", "re", "<0xE2>", "\ufffd"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
    other = LanguageModel(**{**vars(model), "tokenizer": PreTrainedTokenizerFast(tokenizer_object=tokenizer)})
    assert [token_speller(other)(token) for token in range(1, 4)] == [" the", "re", "<0xE2>"]
