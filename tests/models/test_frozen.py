"""Frozen weights cast once, and logits that are never rounded below float32."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_factory import ARCHITECTURES, byte_level_tokenizer, save_random_model
from torch.utils._python_dispatch import TorchDispatchMode

from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.models.frozen import cast_once, frozen_copy, renew
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import add_adapter
from dgpo_cli.models.output_layer import logits_of
from dgpo_cli.models.saving import save_model
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest, Sampling

LOW = torch.bfloat16
IDS = (5, 9, 11, 7)
PROMPT = Prompt(Problem(0, "0", (("user", "x"),), ""), "x", IDS)
VOCABULARY = 32_768


class Casts(TorchDispatchMode):
    """Counts copies to another dtype, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") not in (None, args[0].dtype):
            self.counted[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


def low(model: LanguageModel) -> LanguageModel:
    return replace(model, compute_dtype=LOW)


def frozen(folder: Path) -> LanguageModel:
    model = load_model(str(folder))
    model.model.requires_grad_(False)
    return cast_once(low(model))


def drawn(model: LanguageModel, samples: int, tokens: int, temperature: float = 1.0) -> list[Rollout]:
    asked = [SampleRequest(PROMPT, sample, sample) for sample in range(samples)]
    engine = TransformersEngine(model, stop_ids=frozenset(), batch_size=samples)
    return engine.generate(asked, Sampling(temperature, 1.0, tokens))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_causal_model_draws_in_float32_and_computes_the_same_with_frozen_weights_cast(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    saved = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]())
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    saved.save_pretrained(tmp_path)
    byte_level_tokenizer().save_pretrained(tmp_path)
    trained, held = low(load_model(str(tmp_path))), frozen(tmp_path)
    ids = torch.tensor([IDS])
    with torch.no_grad():
        assert torch.equal(trained.hidden_states(ids), held.hidden_states(ids))
        hidden = held.hidden_states(ids)[0, -1:]
        expected = logits_of(held.head(), hidden)
        assert torch.equal(expected, logits_of(trained.head(), hidden))
        assert torch.allclose(held.logits(ids)[0, -1:], expected, atol=1e-5, rtol=1e-5)
    for model in (trained, held):
        with model.sampling() as next_logits:
            logits, _ = next_logits(input_ids=ids, attention_mask=None, position_ids=None, past_key_values=None)
        assert torch.allclose(logits, expected, atol=2e-5, rtol=2e-5)
    assert [r.token_ids for r in drawn(trained, 4, 6)] == [r.token_ids for r in drawn(held, 4, 6)]


MATRICES = {(32, 32), (16, 32), (64, 32), (32, 64)}  # of a layer of the random model
HEAD = (512, 32)


@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "head of its own"])
@pytest.mark.parametrize("adapter", [True, False], ids=["under LoRA", "alone"])
def test_frozen_weights_are_cast_once_and_not_once_a_token(tmp_path: Path, adapter: bool, tied: bool) -> None:
    model = load_model(str(save_random_model(tmp_path / "model", tied=tied)))
    model.model.requires_grad_(False)
    if adapter:
        options: dict[str, Any] = {"alpha": None, "target_modules": None, "base": "none", "revision": None, "seed": 0}
        model = replace(model, adapter=add_adapter(model.model, rank=4, **options))
    with Casts() as making:
        model = cast_once(low(model))
    assert all(making.counted[shape] for shape in MATRICES | {HEAD})
    with Casts() as sampling:
        made = drawn(model, samples=1, tokens=12)
    assert not any(sampling.counted[shape] for shape in MATRICES)
    assert sampling.counted[HEAD] == 1  # to float32, for the whole of it: a CPU does not multiply bfloat16 into it
    with Casts() as scoring:
        score_rollouts(model, frozen_copy(model) if adapter else None, made, [12], temperature=1.0, tokens=64)
    assert not any(scoring.counted[shape] for shape in MATRICES | {HEAD})


def test_trained_weights_are_cast_once_a_sampling_pass(random_model: Path) -> None:
    model = low(load_model(str(random_model)))
    counts = []
    for tokens in (1, 12):
        with Casts() as casts:
            drawn(model, samples=1, tokens=tokens)
        counts.append({shape: casts.counted[shape] for shape in MATRICES | {HEAD}})
    assert counts[0] == counts[1]


def test_a_renewed_reference_computes_with_the_new_weights_and_is_saved_in_float32(
    random_model: Path, tmp_path: Path
) -> None:
    policy = low(load_model(str(random_model)))
    reference = frozen_copy(policy, renewed=True)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(1.0 + 2.0**-12)  # less than bfloat16 tells apart
            weight.add_(0.01)
    renew(reference, policy)
    made = drawn(policy, 4, 6)
    signals = score_rollouts(policy, reference, made, [6] * 4, temperature=1.0, tokens=4096)
    assert signals.hellinger is not None
    assert float(signals.hellinger.max()) == 0.0
    save_model(reference, tmp_path / "stored")
    stored = dict(load_model(str(tmp_path / "stored")).model.named_parameters())
    for name, weight in policy.model.named_parameters():
        assert torch.equal(stored[name], weight)


def test_adapters_keep_their_own_precision(random_model: Path) -> None:
    model = load_model(str(random_model))
    adapter = add_adapter(model.model, rank=4, alpha=None, target_modules=None, base="none", revision=None, seed=0)
    cast_once(low(replace(model, adapter=adapter)))
    assert {weight.dtype for weight in adapter.parameters()} == {torch.float32}
    assert model.model.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == LOW
    assert model.model.model.embed_tokens.weight.dtype == torch.float32
