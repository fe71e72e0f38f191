"""Model folders that `transformers` loads and that are another model than they seem; and those that only look so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_factory import byte_level_tokenizer, save_random_model
from safetensors.torch import load_file, save_file

from dgpo_cli.data.prompts import make_prompts
from dgpo_cli.errors import DataError
from dgpo_cli.models import load_model
from dgpo_cli.types import Problem

Weights = dict[str, torch.Tensor]
PROJECTION = "model.layers.0.self_attn.q_proj.weight"


def changed(folder: Path, change: Callable[[Weights], Weights], **config: Any) -> Path:
    """A random model of two layers, its stored weights and its config.json changed."""
    save_random_model(folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | config))
    return folder


def same(weights: Weights) -> Weights:
    return weights


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_model(str(folder), key="reference.path")
    [problem] = caught.value.problems
    assert problem.message.startswith("reference.path: ")
    return f"{problem.message} | {problem.hint}"


def projections_as(dtype: torch.dtype) -> Callable[[Weights], Weights]:
    return lambda weights: {name: one.to(dtype) if "proj.weight" in name else one for name, one in weights.items()}


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (f"{PROJECTION}_scale_inv", "1 that no layer takes (" + PROJECTION + "_scale_inv) | these are scales of quant"),
        ("model.layers.0.self_attn.q_proj.qweight", "that no layer takes"),
        ("score.weight", "1 that no layer takes (score.weight) | check that config.json belongs"),
        ("v_head.summary.weight", "that no layer takes"),
        ("visual.patch_embed.proj.weight", "that no layer takes"),
    ],
)
def test_weights_that_no_layer_takes_are_refused(tmp_path: Path, added: str, expected: str) -> None:
    assert expected in refused(changed(tmp_path, lambda weights: weights | {added: torch.ones(4)}))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.position_ids"])
def test_stored_buffers_that_are_computed_now_are_let_pass(tmp_path: Path, name: str) -> None:
    load_model(str(changed(tmp_path, lambda weights: weights | {name: torch.ones(4)})))


def test_a_config_of_fewer_or_more_layers_than_the_weights_is_refused(tmp_path: Path) -> None:
    fewer = changed(tmp_path / "fewer", same, num_hidden_layers=1, layer_types=["full_attention"])
    assert "12 that no layer takes (model.layers.1." in refused(fewer)
    more = changed(tmp_path / "more", same, num_hidden_layers=3, layer_types=["full_attention"] * 3)
    assert "12 missing, which would be random (model.layers.2." in refused(more)


def test_weights_of_another_shape_are_named_with_both_shapes(tmp_path: Path) -> None:
    line = refused(changed(tmp_path, same, vocab_size=500))
    assert "1 of another shape (model.embed_tokens.weight is [512, 32], expected [500, 32])" in line


def test_weights_under_other_names_are_missing_and_left_over(tmp_path: Path) -> None:
    line = refused(changed(tmp_path, lambda weights: {f"base.{name}": one for name, one in weights.items()}))
    assert "missing, which would be random" in line
    assert "26 that no layer takes (base.model." in line


def test_an_equal_copy_of_a_tied_head_is_let_pass(tmp_path: Path) -> None:
    def with_head(weights: Weights) -> Weights:
        return weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}

    load_model(str(changed(tmp_path, with_head)))


@pytest.mark.parametrize(("dtype", "named"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
def test_numbers_of_a_quantized_format_are_not_taken_for_weights(
    tmp_path: Path, dtype: torch.dtype, named: str
) -> None:
    assert f"as {named}, which are no plain numbers" in refused(changed(tmp_path, projections_as(dtype)))


@pytest.mark.parametrize("method", ["fp8", "gptq", "awq", "bitsandbytes"])
def test_a_quantized_model_is_refused_by_its_config(tmp_path: Path, method: str) -> None:
    line = refused(changed(tmp_path, same, quantization_config={"quant_method": method}))
    assert f"are quantized ({method}) | plain weights" in line


@pytest.mark.parametrize("files", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json")])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, files: tuple[str, ...]) -> None:
    save_random_model(tmp_path)
    for name in files:
        (tmp_path / name).unlink()
    assert "has no tokenizer" in refused(tmp_path) or "cannot be loaded" in refused(tmp_path)


def small_vocabulary(folder: Path, *, rows: int) -> Path:
    """A model whose embedding has `rows` rows; its tokenizer has more than 256 ids."""
    return save_random_model(folder, vocab_size=rows)


def test_ids_of_ordinary_text_beyond_the_embedding_are_refused_at_load(tmp_path: Path) -> None:
    size = len(byte_level_tokenizer())
    load_model(str(small_vocabulary(tmp_path / "exact", rows=size)))
    line = refused(small_vocabulary(tmp_path / "short", rows=size - 2))
    assert f"has 2 ids beyond the model's embedding of {size - 2} rows" in line


def with_added(folder: Path, **tokens: str) -> Path:
    """A model with as many rows as its tokenizer had ids before `tokens` were added to it."""
    small_vocabulary(folder, rows=len(byte_level_tokenizer()))
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens(dict(tokens))
    tokenizer.save_pretrained(folder)
    return folder


def test_a_stop_token_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    assert "'<|end|>' is" in refused(with_added(tmp_path, eos_token="<|end|>"))


def test_a_fill_id_beyond_the_embedding_is_never_fed(tmp_path: Path) -> None:
    model = load_model(str(with_added(tmp_path, pad_token="[FILL]")))
    assert model.tokenizer.pad_token_id >= model.embedding_rows
    assert model.pad_id < model.embedding_rows


def test_a_prompt_with_an_added_token_beyond_the_embedding_is_named(tmp_path: Path) -> None:
    model = load_model(str(with_added(tmp_path, pad_token="[FILL]")))
    problems = [Problem(at, str(at), (("user", text),), "2") for at, text in enumerate(("1+1?", "[FILL] 1+1?"))]
    with pytest.raises(DataError) as caught:
        make_prompts(
            problems,
            model.tokenizer,
            template="plain",
            chat_template=False,
            system_prompt=None,
            max_context=None,
            max_completion_tokens=4,
            embedding_rows=model.embedding_rows,
        )
    [problem] = caught.value.problems
    assert problem.message.startswith("row 2 (id 1): the prompt holds '[FILL]', id ")
