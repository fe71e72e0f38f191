"""A checkpoint and its model are one: what is dropped, missing, reshaped or quantised is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_factory import byte_level_tokenizer, save_random_model
from safetensors.torch import load_file, save_file

from dgpo_cli.cli import main
from dgpo_cli.errors import DataError
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.loading_checks import checkpoint_files
from dgpo_cli.models.saving import save_model

Tensors = dict[str, torch.Tensor]
PROJECTIONS = 14  # q, k, v, o, gate, up and down in each of two layers


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def configure(folder: Path, **values: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def with_extra(**extra: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name.replace("__", "."): value for name, value in extra.items()}


def projections(change: Callable[[str, torch.Tensor], Tensors]) -> Callable[[Tensors], Tensors]:
    def changed(tensors: Tensors) -> Tensors:
        made: Tensors = {}
        for name, value in tensors.items():
            made |= change(name, value) if name.endswith("proj.weight") else {name: value}
        return made

    return changed


def float8(name: str, value: torch.Tensor) -> Tensors:
    return {name: value.to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1, 1)}


def gptq(name: str, value: torch.Tensor) -> Tensors:
    stem = name.removesuffix("weight")
    return {f"{stem}qweight": torch.zeros(4, 64, dtype=torch.int32), f"{stem}scales": torch.ones(1, 64)}


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_model(str(folder))
    assert all(problem.hint for problem in caught.value.problems)
    assert "\n" not in str(caught.value)
    return " ".join(f"{problem.message} {problem.hint}" for problem in caught.value.problems)


@pytest.fixture
def folder(tmp_path: Path, random_model: Path) -> Path:
    return Path(shutil.copytree(random_model, tmp_path / "model"))


DROPPED = {
    "scales of fp8": (projections(float8), f"{PROJECTIONS} weights", "layers.0.mlp.down_proj.weight_scale_inv"),
    "an absmax of bitsandbytes": (
        with_extra(model__layers__0__mlp__up_proj__weight__absmax=torch.ones(4)),
        "1 w",
        "qu",
    ),
    "a value head": (with_extra(v_head__summary__weight=torch.ones(1, 32)), "1 weight", "reward or value model"),
    "a score": (with_extra(score__weight=torch.ones(1, 32)), "1 weight", "reward or value model"),
    "what sees": (with_extra(visual__patch_embed__weight=torch.ones(3)), "1 weight", "images"),
    "an adapter": (with_extra(model__layers__0__q_proj__lora_A__weight=torch.ones(3)), "1 weight", "adapter"),
    "a bias": (with_extra(model__layers__0__mlp__up_proj__bias=torch.ones(64)), "1 weight", "up_proj.bias"),
}


@pytest.mark.parametrize("kind", DROPPED)
def test_weights_that_would_be_dropped_are_counted_named_and_refused(kind: str, folder: Path) -> None:
    change, *said = DROPPED[kind]
    message = refused(rewrite(folder, change))
    assert "does not use" in message
    assert all(text in message for text in said)


def test_layers_beyond_the_configuration_are_dropped_and_those_short_of_it_missing(tmp_path: Path) -> None:
    deep = save_random_model(tmp_path / "deep", layers=3)
    message = refused(configure(deep, num_hidden_layers=2, layer_types=["full_attention"] * 2))
    assert "holds 12 weights" in message  # 7 projections, 3 biases and 2 norms of a layer of Qwen2
    assert "num_hidden_layers=2, the weights go on to layer 3" in message
    message = refused(configure(deep, num_hidden_layers=5, layer_types=["full_attention"] * 5))
    assert "24 weights missing, the first model.layers.3." in message


def test_weights_of_another_shape_are_named_with_both_shapes(folder: Path) -> None:
    message = refused(configure(folder, vocab_size=600))
    assert "1 weight" in message
    assert "model.embed_tokens.weight: [512, 32] in the file, [600, 32] by config.json" in message


def test_what_is_dropped_and_what_is_missing_are_both_said(folder: Path) -> None:
    message = refused(rewrite(folder, projections(gptq)))
    assert f"holds {2 * PROJECTIONS} weights" in message
    assert f"{PROJECTIONS} weights missing" in message


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_whose_scales_have_gone_are_refused(dtype: torch.dtype, folder: Path) -> None:
    message = refused(rewrite(folder, projections(lambda name, value: {name: value.to(dtype)})))
    assert f"{PROJECTIONS} weights" in message
    assert "only together with a scale" in message


def test_a_configuration_that_says_quantised_is_refused_by_its_method(folder: Path) -> None:
    assert "(quantization_config in its config.json: fp8)" in refused(
        configure(folder, quantization_config={"quant_method": "fp8", "activation_scheme": "dynamic"})
    )
    load_model(str(configure(folder, quantization_config=None)))


def test_a_head_beside_a_tied_embedding_passes_only_with_the_same_numbers(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    load_model(str(folder))
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1})
    assert "ties lm_head.weight to model.embed_tokens.weight" in refused(folder)
    both = load_model(str(configure(folder, tie_word_embeddings=False)))  # as the hint says
    assert torch.equal(both.head().weight, both.model.get_input_embeddings().weight + 1)


def test_buffers_of_older_checkpoints_pass_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rotary = save_random_model(tmp_path / "rotary")
    rewrite(rotary, with_extra(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8)))
    load_model(str(rotary))
    config = transformers.GPT2Config(vocab_size=512, n_embd=32, n_layer=1, n_head=2, n_positions=4)  # 4 ids in a pass
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    byte_level_tokenizer().save_pretrained(tmp_path / "gpt2")
    mask = {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    rewrite(
        tmp_path / "gpt2", lambda old: {name.removeprefix("transformer."): value for name, value in old.items()} | mask
    )
    load_model(str(tmp_path / "gpt2"))
    assert "warning" not in capsys.readouterr().err


def test_what_a_class_is_defined_without_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = transformers.GPTNeoXConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    byte_level_tokenizer().save_pretrained(tmp_path)
    load_model(str(rewrite(tmp_path, with_extra(gpt_neox__layers__0__attention__bias=torch.ones(1, 1, 8, 8)))))
    assert capsys.readouterr().err == ""
    load_model(str(rewrite(tmp_path, with_extra(gpt_neox__layers__0__attention__bias=torch.ones(32)))))
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "1 weight" in said
    assert "gpt_neox.layers.0.attention.bias: left out" in said


def split(folder: Path) -> tuple[Path, Path]:
    """The weights in two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"
    places: dict[str, str] = {}
    for part, file in enumerate(files):
        names = sorted(tensors)[part::2]
        save_file({name: tensors[name] for name in names}, file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return files


def test_a_checkpoint_in_several_files_is_whole_or_refused(folder: Path, random_model: Path) -> None:
    first, second = split(folder)
    assert checkpoint_files(str(folder), None) == [first, second]
    load_model(str(folder))
    tensors = load_file(second)
    save_file({name: tensors[name] for name in sorted(tensors)[1:]}, second, metadata={"format": "pt"})
    assert f"1 weight missing, the first {sorted(tensors)[0]}" in refused(folder)
    twice = sorted(load_file(first))[0]
    save_file(tensors | {twice: load_file(first)[twice] + 1}, second, metadata={"format": "pt"})
    assert f"in several files with other numbers, the first {twice}" in refused(folder)
    second.unlink()
    assert second.name in refused(folder)
    shutil.copy(random_model / "model.safetensors", folder)
    assert "does not say which of both checkpoints is meant" in refused(folder)


def test_a_pad_id_beyond_the_embedding_in_the_configuration_only_fills(folder: Path, tmp_path: Path) -> None:
    before = load_model(str(folder))
    padded = load_model(str(configure(folder, pad_token_id=512)))
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(padded.hidden_states(ids), before.hidden_states(ids))
    save_model(padded, tmp_path / "saved")
    load_model(str(tmp_path / "saved"))


@pytest.mark.parametrize("command", ["train", "eval", "rollout", "reference"])
def test_every_command_refuses_a_checkpoint_without_its_quantisation(
    command: str, folder: Path, random_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rewrite(folder, projections(float8))
    data = ["data=digit_chain", "data.size=8"]
    typed = {
        "train": ["train", f"model.path={folder}", *data],
        "eval": ["eval", f"model.path={folder}", "benchmark=digit_chain"],
        "rollout": ["rollout", f"model.path={folder}", *data],
        "reference": ["train", f"model.path={random_model}", "reference=path", f"reference.path={folder}", *data],
    }[command]
    if command in ("train", "reference"):
        typed += ["steps=1", "rollout.max_completion_tokens=8", "benchmark=none"]
    assert main([*typed, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    said = capfd.readouterr().err
    assert said.count("error:") == 1
    assert f"{PROJECTIONS} weights that a Qwen2ForCausalLM does not use" in said
    assert ("reference.path:" if command == "reference" else "model.path:") in said
