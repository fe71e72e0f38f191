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
from dgpo_cli.models.language_model import LanguageModel, logits_of
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import add_adapter
from dgpo_cli.models.saving import save_model
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.training.engine_gap import logprob_gap
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
    return low(model).with_frozen_cast()


def drawn(model: LanguageModel, samples: int, tokens: int, temperature: float = 1.0) -> list[Rollout]:
    asked = [SampleRequest(PROMPT, sample, sample) for sample in range(samples)]
    engine = TransformersEngine(model, stop_ids=frozenset(), batch_size=samples)
    return engine.generate(asked, Sampling(temperature, 1.0, tokens))


def distribution(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits.double(), -1)


def apart(p: torch.Tensor, q: torch.Tensor) -> tuple[float, float]:
    """KL and squared Hellinger distance of two log-distributions."""
    distance = 0.5 * (torch.exp(p / 2) - torch.exp(q / 2)).square().sum()
    return float((p.exp() * (p - q)).sum()), float(distance)


def sharp(folder: Path, largest: float = 22.0) -> Path:
    """A model of 32k ids whose largest logit after IDS is 22, most of the mass on ids within 10 of it."""
    save_random_model(folder, vocab_size=VOCABULARY, hidden_size=64, tied=False, max_context=64)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        top = model(torch.tensor([IDS])).logits[0, -1].max()
        model.lm_head.weight.mul_(largest / top)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharp(tmp_path_factory.mktemp("wide") / "model")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"], ids=["float32 weights", "bfloat16 weights"])
@pytest.mark.parametrize("has_head", [True, False])
def test_what_is_drawn_from_has_the_distribution_that_is_scored(wide: Path, has_head: bool, dtype: str) -> None:
    model = low(load_model(str(wide), dtype=dtype))
    model.has_head = has_head
    ids = torch.tensor([IDS])
    with torch.no_grad():
        hidden = model.hidden_states(ids, None)[0, -1:]
        scored = distribution(logits_of(model.head(), hidden)[0])
        rounded = distribution(torch.nn.functional.linear(hidden, model.head().weight)[0])
    with model.sampling() as next_logits:
        logits, _ = next_logits(input_ids=ids, attention_mask=None, position_ids=None, past_key_values=None)
    assert logits.dtype == torch.float32
    kl, distance = apart(distribution(logits[0]), scored)
    assert abs(kl) < 1e-6
    assert distance < 1e-7
    kl, distance = apart(rounded, scored)  # as it was
    assert kl > 1e-4
    assert distance > 2e-5


@pytest.mark.parametrize("has_head", [True, False])
def test_the_engines_log_probs_are_those_of_the_trainer(wide: Path, has_head: bool) -> None:
    model = load_model(str(wide))
    gaps = {}
    for one in (model, low(model)):
        one.has_head = has_head
        made = drawn(one, samples=8, tokens=6, temperature=0.8)
        signals = score_rollouts(one, None, made, [6] * 8, temperature=0.8, tokens=4096)
        gaps[one.compute_dtype] = logprob_gap(made, signals)
    assert gaps[None]["engine/logprob_gap_max"] < 1e-4
    assert 1e-3 < gaps[LOW]["engine/logprob_gap_max"] < 1  # of the body in bfloat16, with a cache and without


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
        assert torch.equal(trained.hidden_states(ids, None), held.hidden_states(ids, None))
        hidden = held.hidden_states(ids, None)[0, -1:]
        expected = logits_of(held.head(), hidden)
        assert torch.equal(expected, logits_of(trained.head(), hidden))
        assert torch.allclose(held.logits(ids, None)[0, -1:], expected, atol=1e-5, rtol=1e-5)
    for model in (trained, held):
        with model.sampling() as next_logits:
            logits, _ = next_logits(input_ids=ids, attention_mask=None, position_ids=None, past_key_values=None)
        assert torch.allclose(logits, expected, atol=2e-5, rtol=2e-5)
    assert [r.token_ids for r in drawn(trained, 4, 6)] == [r.token_ids for r in drawn(held, 4, 6)]


def test_a_model_in_one_piece_draws_and_scores_in_float32(halved_folder: Path) -> None:
    model = low(load_model(str(halved_folder)))
    assert not model.has_head
    made = drawn(model, 4, 5)
    signals = score_rollouts(model, None, made, [5] * 4, temperature=1.0, tokens=4096)
    with torch.no_grad():
        assert model.logits(torch.tensor([IDS]), None).dtype == torch.float32
    assert logprob_gap(made, signals)["engine/logprob_gap_mean"] < 0.02


MATRICES = {(32, 32), (16, 32), (64, 32), (32, 64)}  # of a layer of the random model
HEAD = (512, 32)


@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "head of its own"])
@pytest.mark.parametrize("adapter", [True, False], ids=["under LoRA", "alone"])
def test_frozen_weights_are_cast_once_and_not_once_a_token(tmp_path: Path, adapter: bool, tied: bool) -> None:
    model = load_model(str(save_random_model(tmp_path / "model", tied=tied)))
    model.model.requires_grad_(False)
    if adapter:
        options = {"alpha": None, "target_modules": None, "base": "none", "revision": None, "seed": 0}
        model = replace(model, adapter=add_adapter(model.model, rank=4, **options))
    with Casts() as making:
        model = low(model).with_frozen_cast()
    assert all(making.counted[shape] for shape in MATRICES | {HEAD})
    with Casts() as sampling:
        made = drawn(model, samples=1, tokens=12)
    assert not any(sampling.counted[shape] for shape in MATRICES)
    assert sampling.counted[HEAD] == 1  # to float32, for the whole of it: a CPU does not multiply bfloat16 into it
    with Casts() as scoring:
        score_rollouts(model, model.frozen_copy() if adapter else None, made, [12], temperature=1.0, tokens=64)
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
    reference = policy.frozen_copy(renewed=True)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(1.0 + 2.0**-12)  # less than bfloat16 tells apart
            weight.add_(0.01)
    reference.copy_weights_from(policy)
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
    low(replace(model, adapter=adapter)).with_frozen_cast()
    assert {weight.dtype for weight in adapter.parameters()} == {torch.float32}
    assert model.model.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == LOW
    assert model.model.model.embed_tokens.weight.dtype == torch.float32
