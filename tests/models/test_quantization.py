"""Quantised bases: the policy is what the codes say, in every pass, on every reading, and for whoever loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from torch import Tensor

from dgpo_cli.bundled import bundled_path
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import AdapterView, add_adapter
from dgpo_cli.models.saving import architecture_summary, save_model
from dgpo_cli.planning.architecture import Adapters, from_json
from dgpo_cli.planning.memory import Setting, stored_weights

TINY = "bundled:tiny"
IDS = torch.arange(2, 22).reshape(2, 10)
KINDS = ("nf4", "int8")


def adapted(kind: str) -> LanguageModel:
    """An adapter that does something, on the bundled model."""
    model = load_model(TINY, quantization=kind)
    model.adapter = add_adapter(model.model, rank=3, alpha=None, target_modules=None, base=TINY, revision=None, seed=1)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def states(model: LanguageModel, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model.hidden_states(ids)


def dequantised(kind: str) -> LanguageModel:
    """The same policy in plain float32 weights: those that the codes stand for."""
    coded, plain = adapted(kind), adapted("none")
    for name, module in coded.model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            state: Any = module.state
            codes, scales = (module.weight.data, module.weight.SCB) if state.CB is None else (state.CB, state.SCB)
            weight = codes.float() * scales[:, None] / 127
        else:
            continue
        plain.model.get_submodule(name).weight.data = weight.float()
    return plain


def adapter_gradients(model: LanguageModel) -> Tensor:
    assert model.adapter is not None
    model.hidden_states(IDS).square().mean().backward()
    return torch.cat([weight.grad.flatten() for weight in model.adapter.parameters() if weight.grad is not None])


def test_nf4_states_and_gradients_are_those_of_the_weights_that_the_codes_stand_for() -> None:
    coded, plain = adapted("nf4"), dequantised("nf4")
    assert torch.allclose(states(coded), states(plain), atol=1e-4)
    assert torch.allclose(adapter_gradients(coded), adapter_gradients(plain), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(states(coded), states(adapted("none")), atol=1e-2)


def test_int8_rounds_activations_too_so_that_it_is_near_to_its_weights() -> None:
    coded, plain = adapted("int8"), dequantised("int8")
    off = (states(coded) - states(plain)).norm() / states(plain).norm()
    assert 0.0 < off < 0.05
    ours, theirs = adapter_gradients(coded), adapter_gradients(plain)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_computes_the_same_whatever_stands_beside_it_with_a_gradient_or_without(kind: str) -> None:
    model = adapted(kind)
    together, alone = states(model), states(model, IDS[:1])
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert torch.equal(model.hidden_states(IDS).detach(), together)


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_that_is_read_again_is_the_same_to_the_bit(kind: str) -> None:
    assert torch.equal(states(load_model(TINY, quantization=kind)), states(load_model(TINY, quantization=kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_same_codes_with_the_adapter_off(kind: str) -> None:
    model = adapted(kind)
    reference = frozen_copy(model)
    assert reference.model is model.model
    assert reference.adapter == AdapterView(model.model, None)
    assert torch.equal(states(reference), states(load_model(TINY, quantization=kind)))
    assert not torch.allclose(states(reference), states(model), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_brings_the_quantisation_of_its_base(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = adapted(kind)
    save_model(model, tmp_path)
    again = load_model(str(tmp_path))
    assert again.quantization == kind
    assert torch.equal(states(again), states(model))
    capsys.readouterr()
    merged = load_model(str(tmp_path), merge_adapter=True)
    assert f"trained on {kind} weights" in capsys.readouterr().err
    assert merged.quantization == "none"


@pytest.mark.parametrize("kind", KINDS)
def test_the_facts_of_a_model_count_weights_and_not_bytes(kind: str) -> None:
    plain, coded = (architecture_summary(load_model(TINY, quantization=name)) for name in ("none", kind))
    assert coded["parameters"] == plain["parameters"]
    assert coded["quantization"] == kind
    assert "quantization" not in plain


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_counts_the_bytes_that_codes_and_scales_take(kind: str) -> None:
    planned = stored_weights(from_json(bundled_path("tiny") / "config.json"), Setting(quantization=kind))
    held = 0
    for weight in load_model(TINY, quantization=kind).model.parameters():
        held += weight.numel() * weight.element_size()
        quant = getattr(weight, "quant_state", None)
        if quant is not None:  # scales in a byte, and their scales
            held += quant.absmax.numel() * quant.absmax.element_size() + quant.state2.absmax.numel() * 4
        held += 4 * weight.shape[0] if weight.dtype is torch.int8 else 0
    assert planned == pytest.approx(held, rel=0.01)
    assert planned < 0.4 * stored_weights(from_json(bundled_path("tiny") / "config.json"), Setting())


def test_adapters_stay_in_float32_beside_codes_in_the_plan() -> None:
    model, adapters = from_json(bundled_path("tiny") / "config.json"), Adapters(rank=4)
    more = stored_weights(model, Setting(quantization="nf4", adapters=adapters)) - stored_weights(
        model, Setting(quantization="nf4")
    )
    assert more == 4 * model.adapter_parameters(adapters)
