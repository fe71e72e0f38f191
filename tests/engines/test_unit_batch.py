"""Which rows are computed together while a unit is decoded: counted at the passes of a real model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dgpo_cli.engines import unit_batch
from dgpo_cli.engines.unit_batch import UnitBatch
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model

PROMPTS = [(5, 6, 7)] * 8 + [(8, 9)] * 8  # two groups of eight


class Counted:
    """The passes of a model, and the shapes of what they were fed."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.shapes: list[tuple[int, ...]] = []
        self.masked: list[bool] = []

    def __call__(self, **inputs: Any) -> tuple[Tensor, Any]:
        self.shapes.append(tuple(inputs["input_ids"].shape))
        self.masked.append(inputs["attention_mask"] is not None)
        with self.model.sampling() as next_logits:
            return next_logits(**inputs)


@pytest.fixture(scope="module")
def model(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


def batch_of(prompts: Sequence[tuple[int, ...]]) -> UnitBatch:
    return UnitBatch(prompts, max_tokens=6, pad_id=0, device="cpu")


def test_a_prompt_is_computed_once_and_its_logits_stand_in_every_row_of_its_group(model: LanguageModel) -> None:
    passes, batch = Counted(model), batch_of(PROMPTS)
    logits = batch.first(passes)
    assert passes.shapes == [(2, 3)]  # two prompts, the longer one of three tokens
    assert logits.shape[0] == 16
    assert torch.equal(logits[:8], logits[:1].expand(8, -1))
    assert torch.equal(logits[8:], logits[8:9].expand(8, -1))
    with torch.no_grad():
        expected = model.model(torch.tensor([[8, 9]])).logits[0, -1]
    assert torch.allclose(logits[8], expected, atol=1e-5)


def test_ended_rows_are_let_go_when_they_are_an_eighth_of_those_computed(model: LanguageModel) -> None:
    passes, batch = Counted(model), batch_of(PROMPTS)
    batch.first(passes)
    tokens = torch.arange(16)
    tokens = batch.end({3}, tokens)  # 1 of 16: computed on
    assert len(tokens) == 16
    assert len(batch.running) == 15
    batch.following(passes, tokens)
    tokens = batch.end({9}, torch.arange(16))  # 2 of 16: both go
    assert tokens.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15] == batch.completions.tolist()
    assert batch.running == list(enumerate(tokens.tolist()))
    batch.following(passes, tokens)
    assert passes.shapes == [(2, 3), (16, 1), (14, 1)]


def test_rows_of_one_length_are_computed_without_a_mask(model: LanguageModel) -> None:
    for prompts, masked in ((PROMPTS, True), (PROMPTS[:8], False)):
        passes, batch = Counted(model), batch_of(prompts)
        batch.first(passes)
        assert passes.masked == [masked]


def test_with_a_cache_that_nobody_knows_every_row_is_computed_to_the_end(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = {}
    for movable in (True, False):
        monkeypatch.setattr(unit_batch, "rows_can_move", lambda cache, movable=movable: movable)
        passes, batch = Counted(model), batch_of(PROMPTS)
        batch.first(passes)
        tokens = batch.end(set(range(8)), torch.arange(16) + 20)
        logits[movable] = batch.following(passes, tokens)
        assert passes.shapes == ([(2, 3), (8, 1)] if movable else [(2, 3), (16, 3), (16, 1)])
    assert torch.allclose(logits[True], logits[False][8:], atol=1e-5)
