"""Parameters counted by the plan against transformers' own models, and what an architecture is read from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from dgpo_cli.bundled import bundled_path
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.compose import complete, hydra_ready
from dgpo_cli.config.finish import finish
from dgpo_cli.config.model_groups import ArchitectureConfig
from dgpo_cli.config.overrides import Request, prepare
from dgpo_cli.planning.architecture import Adapters, Architecture, from_config, from_json

OPTIONS = [name for name in catalogue.option_files("model") if name != "path"]
# What the models' cards say.
PUBLISHED = {"qwen0_5b": 0.49e9, "qwen7b": 7.61e9, "qwen14b": 14.7e9, "qwen32b": 32.5e9, "llama3_8b": 8.03e9}
SMALL = Architecture(64, 2, 4, 2, 16, 96, 256, True, 128, qkv_bias=True)


@pytest.fixture(scope="module", autouse=True)
def _one_hydra_for_all() -> Iterator[None]:
    with hydra_ready(Request("train", [])):
        yield


def stated(option: str) -> Any:
    request, _ = prepare("train", [f"model={option}"])
    request, config = complete(request)
    return finish("train", config, request.overrides).model


def on_meta(model: Architecture) -> Any:
    """The model that transformers builds from the same sizes, without memory."""
    sizes = {
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocab_rows,
        "tie_word_embeddings": model.tied_embeddings,
        "max_position_embeddings": model.max_positions,
        "head_dim": model.head_dim,
    }
    if model.qkv_bias:
        made, config = Qwen2ForCausalLM, Qwen2Config(**{key: sizes[key] for key in sizes if key != "head_dim"})
    elif model.qk_norm:
        made, config = Qwen3ForCausalLM, Qwen3Config(**sizes)
    else:
        made, config = LlamaForCausalLM, LlamaConfig(**sizes)
    with torch.device("meta"):
        return made(config)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_model_option_has_as_many_parameters_as_transformers_builds(option: str) -> None:
    model = from_config(stated(option).architecture)
    assert model is not None
    built = on_meta(model)
    assert model.parameters == sum(parameter.numel() for parameter in built.parameters())
    assert PUBLISHED.get(option, model.parameters) == pytest.approx(model.parameters, rel=0.01)
    counted = sorted(elements for elements, count in model.tensors() for _ in range(count))
    assert counted == sorted(parameter.numel() for parameter in built.parameters())


def test_a_small_model_by_hand() -> None:
    # Matrices: q 64x64, k and v 64x32, o 64x64, three of 64x96. Biases 64 + 2 x 32. Two norms of 64.
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96 + 128 + 128
    assert SMALL.layer_parameters == layer
    assert SMALL.parameters == 2 * layer + 256 * 64 + 64
    # LoRA of rank 4: 4 x (in + out) of q, k, v, o, gate, up, down.
    assert SMALL.adapter_parameters(Adapters(4)) == 2 * 4 * ((64 + 64) * 2 + (64 + 32) * 2 + (64 + 96) * 3)
    assert SMALL.adapter_parameters(Adapters(4, ("q_proj",))) == 2 * 4 * (64 + 64)
    assert SMALL.cache_bytes(2) == 2 * 2 * 32 * 2  # keys and values, two layers, two heads of 16, bfloat16


def test_the_bundled_model_states_what_its_folder_says() -> None:
    file = bundled_path("tiny") / "config.json"
    model = from_config(stated("tiny").architecture)
    assert model is not None
    assert model.parameters == from_json(file).parameters == 341_760


def test_another_architecture_is_counted_roughly_and_says_so(tmp_path: Path) -> None:
    content = json.loads((bundled_path("tiny") / "config.json").read_text()) | {"model_type": "another"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert from_json(tmp_path / "config.json").family is None


def test_a_configuration_without_sizes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    with pytest.raises(ValueError, match="num_attention_heads"):
        from_json(tmp_path / "config.json")
    with pytest.raises(ValueError, match="lacks layers, heads"):
        from_config(ArchitectureConfig(hidden_size=64))
