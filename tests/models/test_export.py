"""The stream of weights: what a checkpoint holds, under every strategy, with an adapter added in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import transformers
from model_factory import ARCHITECTURES, byte_level_tokenizer, save_random_model
from safetensors.torch import load_file
from several_processes import together
from torch import Tensor

from dgpo_cli.models.export import exported, tied_head
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import AdapterView, add_adapter
from dgpo_cli.models.model_paths import adapter_base
from dgpo_cli.models.saving import save_merged, save_model

PROGRAM = Path(__file__).parent / "export_program.py"


def stored(folder: Path) -> dict[str, Tensor]:
    held: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return held


def adapted(folder: Path, dtype: str = "float32") -> LanguageModel:
    """A model whose adapter has been trained somewhat."""
    model = load_model(str(folder), dtype=dtype)
    model.adapter = add_adapter(
        model.model, rank=3, alpha=None, target_modules=None, base=adapter_base(str(folder)), revision=None, seed=1
    )
    disturb(model.adapter)
    return model


def disturb(view: AdapterView) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in view.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi (head bias)", "gpt2"])
def test_names_and_values_are_those_of_a_checkpoint(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).save_pretrained(tmp_path)
    byte_level_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert_same(dict(exported(model, torch.float32)), stored(tmp_path))


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_left_out(tied: bool, tmp_path: Path) -> None:
    model = load_model(str(save_random_model(tmp_path / "model", tied=tied)))
    assert ("lm_head.weight" in dict(exported(model, torch.float32))) is not tied
    assert tied_head(model) == ("model.embed_tokens.weight" if tied else None)


def test_weights_are_cast_to_the_engines_dtype(policy: LanguageModel) -> None:
    exact = dict(exported(policy, torch.float32))
    assert_same(dict(exported(policy, torch.bfloat16)), {name: one.bfloat16() for name, one in exact.items()})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_adapter_is_what_merging_saves(dtype: str, random_model: Path, tmp_path: Path) -> None:
    model = adapted(random_model, dtype)
    save_model(model, tmp_path / "adapter")
    save_merged(model, tmp_path / "adapter", tmp_path / "merged")
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    found = dict(exported(model, getattr(torch, dtype)))
    assert_same(found, stored(tmp_path / "merged"))
    assert not torch.equal(
        found["model.layers.0.mlp.up_proj.weight"], stored(random_model)["model.layers.0.mlp.up_proj.weight"]
    )
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


def fingerprint(model: LanguageModel) -> str:
    digest = hashlib.sha256()
    for name, weight in exported(model, torch.bfloat16):
        digest.update(name.encode() + weight.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("lora", [pytest.param(False, marks=pytest.mark.slow), True])
def test_sharded_and_whole_models_give_the_same_bytes(lora: bool, random_model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    if lora:
        model = adapted(random_model)
        save_model(model, adapter)
    else:
        model = load_model(str(random_model))
    lines = together(PROGRAM, 2, tmp_path, str(random_model), str(adapter) if lora else "")
    assert {line["strategy"] for line in lines} == {"ddp", "fsdp", "fsdp_offload"}
    assert {json.dumps(line["hashes"]) for line in lines} == {json.dumps([fingerprint(model)] * 2)}
    assert all(line["largest"] <= line["one"] for line in lines)  # elements: never more than one whole weight
