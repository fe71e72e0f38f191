"""The cache of a batch that decodes, against passes without any cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from model_factory import SMALL

from dgpo_cli.models.cached_rows import ReservedLayer, keep_rows, reserve, rows_can_move

MIXED = ["sliding_attention", "full_attention"]
MODELS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "mistral (sliding)": lambda: transformers.MistralConfig(**SMALL, sliding_window=6),
    "gemma3 (sliding and full)": lambda: transformers.Gemma3TextConfig(
        **SMALL, head_dim=16, sliding_window=6, layer_types=MIXED
    ),
    "lfm2 (convolution and full)": lambda: transformers.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
}
PROMPTS = torch.tensor([[7, 8, 9, 10], [20, 21, 22, 23]])
ROWS = torch.tensor([0, 0, 1, 1, 1])  # two completions of the first prompt, three of the second
TOKENS = torch.tensor([[30, 40, 50], [31, 41, 51], [32, 42, 52], [33, 43, 53], [34, 44, 54]])


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_repeated_and_dropped_rows_give_the_logits_of_whole_sequences(name: str) -> None:
    model = model_of(MODELS[name]())
    cache = model(PROMPTS, use_cache=True).past_key_values
    assert rows_can_move(cache)
    reserve(cache, ROWS, TOKENS.shape[1])
    assert rows_can_move(cache)
    left = torch.arange(5)
    for step, kept in enumerate(([0, 1, 2, 3, 4], [0, 2, 4], [0, 1])):  # then rows 0, 2, 4, then 0, 2 of the five
        if step:
            keep_rows(cache, torch.tensor(kept))
        left = left[kept]
        logits = model(TOKENS[left, step : step + 1], past_key_values=cache, use_cache=True).logits[:, -1]
        whole = torch.cat([PROMPTS[ROWS[left]], TOKENS[left, : step + 1]], dim=1)
        expected = model(whole, use_cache=False).logits[:, -1]
        assert torch.allclose(logits, expected, atol=1e-5), (name, step)
    assert left.tolist() == [0, 2]


@torch.no_grad()
def test_memory_for_all_tokens_is_taken_once() -> None:
    model = model_of(MODELS["llama"]())
    cache = model(PROMPTS, use_cache=True).past_key_values
    reserve(cache, ROWS, 3)
    places = [layer.keys.data_ptr() for layer in cache.layers]
    shape = cache.layers[0]._keys.shape
    assert shape == (5, 1, 4 + 3, 16)  # rows, heads, tokens, width of a head
    for step in range(3):
        model(TOKENS[:, step : step + 1], past_key_values=cache, use_cache=True)
    keep_rows(cache, torch.tensor([1, 4]))
    assert all(isinstance(layer, ReservedLayer) for layer in cache.layers)
    assert [layer.keys.data_ptr() for layer in cache.layers] == places
    assert cache.layers[0].keys.shape == (2, 1, 7, 16)


def test_a_cache_that_nobody_knows_is_left_alone() -> None:
    class OwnLayer(transformers.cache_utils.DynamicLayer):
        """May hold more than keys and values."""

    known = transformers.DynamicCache(config=MODELS["llama"]())
    assert rows_can_move(known)
    known.layers[1] = OwnLayer()
    assert not rows_can_move(known)
    assert not rows_can_move(((torch.zeros(1), torch.zeros(1)),))
