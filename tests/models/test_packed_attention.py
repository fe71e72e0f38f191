"""Packed rows against padded ones: the same states and the same gradients, for each family and every layout."""

from __future__ import annotations

import copy

import pytest
import torch
from rollout_factory import LENGTHS, uneven_rollouts
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import MicroBatch, make_microbatches
from dgpo_cli.models.packed_attention import no_packing, pack_attention
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.scoring import predictive_states, score_rollouts
from dgpo_cli.processes import SOLO

SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "llama": (LlamaForCausalLM, LlamaConfig),
}


def cut(packed: bool, tokens: int) -> list[MicroBatch]:
    return make_microbatches(uneven_rollouts(), list(range(5)), LENGTHS, tokens=tokens, pad_id=0, packed=packed)


def states_and_gradients(model: LanguageModel, batches: list[MicroBatch]) -> tuple[dict[int, Tensor], Tensor]:
    """The states of each row, and the gradient of a loss that no two tokens enter alike."""
    model.model.zero_grad()
    states = {}
    for batch in batches:
        pieces = predictive_states(model, batch).split(batch.lengths)
        for row, piece in zip(batch.rows, pieces, strict=True):
            states[row] = piece.detach()
            (piece.sin() * torch.arange(1, piece.numel() + 1).view_as(piece)).sum().backward(retain_graph=True)
    return states, torch.cat([weight.grad.flatten() for weight in model.model.base_model.parameters()])


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_sequences_have_the_states_and_gradients_of_padded_ones(family: str, checkpointing: bool) -> None:
    """In float64, where what is left of 1e-6 would be a token that sees a neighbour."""
    make, config = FAMILIES[family]
    torch.manual_seed(0)
    plain = make(config(**SIZES)).double().eval()
    packing = copy.deepcopy(plain)
    pack_attention(packing)
    for one in (plain, packing):
        adapt_layers(one, checkpointing=checkpointing, compiled=False)
    expected, gradient = states_and_gradients(LanguageModel(plain, None, "", has_head=True), cut(False, 1000))
    for tokens in (1000, 20, 1):
        batches = cut(True, tokens)
        found, packed_gradient = states_and_gradients(LanguageModel(packing, None, "", has_head=True), batches)
        assert found.keys() == expected.keys()
        for row, states in expected.items():
            assert torch.allclose(found[row], states, atol=1e-12, rtol=1e-12)
        assert float((packed_gradient - gradient).norm() / gradient.norm()) < 1e-12


def test_packed_rows_fill_the_budget_without_padding() -> None:
    batches = cut(True, 30)
    assert sorted(row for batch in batches for row in batch.rows) == [0, 1, 2, 4]  # row 3 counts no token
    assert all(batch.input_ids.numel() <= 30 for batch in batches)
    assert {batch.padding for batch in batches} == {0}
    assert len(batches) < len(cut(False, 30))
    assert sorted(batch.rows for batch in cut(True, 1)) == [[0], [1], [2], [4]]


def test_signals_of_packed_rows_are_those_of_padded_ones(policy: LanguageModel, reference: LanguageModel) -> None:
    expected = score_rollouts(policy, reference, uneven_rollouts(), LENGTHS, temperature=1.0, tokens=40)
    models = []
    for model in (policy, reference):
        packing = copy.deepcopy(model.model)
        pack_attention(packing)
        models.append(LanguageModel(packing, model.tokenizer, model.path, has_head=True, packs=True))
    found = score_rollouts(models[0], models[1], uneven_rollouts(), LENGTHS, temperature=1.0, tokens=40)
    for name in ("logprobs", "entropy", "grad_norm", "ref_logprobs", "hellinger"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-5), name


def test_a_model_that_packs_generates_as_before() -> None:
    torch.manual_seed(0)
    plain = Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()
    packing = copy.deepcopy(plain)
    pack_attention(packing)
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    outputs = [m.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=6) for m in (plain, packing)]
    assert torch.equal(*outputs)


def test_positions_that_depend_on_the_longest_of_a_row_are_not_packed() -> None:
    """Nor cut: a part of a sequence would be turned by other angles than the rest of it."""
    stretched = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    model = LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=stretched))
    assert no_packing(model) == "LlamaForCausalLM scales its positions by the longest sequence of a pass"


def test_layers_that_see_a_window_are_not_packed() -> None:
    windowed = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16))
    assert no_packing(windowed) == "MistralForCausalLM has layers in which a token does not see its whole sequence"
    assert no_packing(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None))) is None
    capped = Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, attn_implementation="eager"))
    assert no_packing(capped) == "Gemma2ForCausalLM has an attention of its own"
    placement = Placement(StrategyConfig(packing=True), "cpu", SOLO)
    with pytest.raises(ConfigError, match=r"strategy.packing=true: MistralForCausalLM"):
        placement.policy(LanguageModel(windowed, None, "", has_head=True))
