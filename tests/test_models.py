"""Loading models: their heads told apart from their bodies, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_factory import byte_level_tokenizer, save_random_model
from safetensors.torch import load_file, save_file

from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.errors import DataError
from dgpo_cli.models import adapt_layers, load_model
from dgpo_cli.scoring import score_rollouts
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling

SMALL = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
ARCHITECTURES: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=True),
    "gemma2 (softcap)": lambda: transformers.Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=3.0),
    "cohere (scaled)": lambda: transformers.CohereConfig(**SMALL, logit_scale=0.25),
    "granite (divided)": lambda: transformers.GraniteConfig(**SMALL, logits_scaling=4.0),
    "phi (head bias)": lambda: transformers.PhiConfig(**SMALL | {"num_key_value_heads": 2}),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=128),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_causal_model_is_sampled_and_scored(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]())
    with torch.no_grad():
        for parameter in saved.parameters():  # biases and embeddings that matter
            parameter.add_(0.3 * torch.randn_like(parameter))
    saved.save_pretrained(tmp_path)
    byte_level_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert model.has_head
    prompt = Prompt(Problem(0, "0", (("user", "x"),), ""), "x", (5, 9, 11))
    requests = [SampleRequest(prompt, sample, sample) for sample in range(3)]
    made = TransformersEngine(model, stop_ids=frozenset({0}), batch_size=3).generate(requests, Sampling(1.0, 1.0, 6))
    lengths = [len(rollout.token_ids) for rollout in made]
    signals = score_rollouts(model, None, made, lengths, temperature=1.0, tokens=4096)
    for row, rollout in enumerate(made):
        ids = torch.tensor([[*prompt.token_ids, *rollout.token_ids]])
        with torch.no_grad():
            expected = torch.log_softmax(model.model(ids).logits[0, 2:-1].double(), -1)
        chosen = expected.gather(1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
        assert torch.allclose(signals.logprobs[row, : lengths[row]].double(), chosen, atol=1e-4)


class HalvedConfig(transformers.Qwen2Config):
    model_type = "halved"


class Halved(transformers.Qwen2ForCausalLM):
    """A model that does something of its own between body and logits."""

    config_class = HalvedConfig

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 2
        return output


@pytest.fixture
def halved_folder(tmp_path: Path) -> Path:
    """The random model, its type that of `Halved`."""
    transformers.AutoConfig.register("halved", HalvedConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(HalvedConfig, Halved, exist_ok=True)
    folder = save_random_model(tmp_path / "halved")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "halved", "architectures": ["Halved"]}))
    return folder


def test_a_head_that_cannot_be_told_apart_falls_back_and_says_so(
    tmp_path: Path, halved_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = load_model(str(save_random_model(tmp_path / "plain")))
    assert "warning" not in capsys.readouterr().err
    halved = load_model(str(halved_folder))
    assert capsys.readouterr().err.count("could not be told apart") == 1
    assert plain.has_head
    assert not halved.has_head
    prompt = Prompt(Problem(0, "0", (("user", "x"),), ""), "x", (5, 9, 11))
    made = TransformersEngine(plain, stop_ids=frozenset(), batch_size=1).generate(
        [SampleRequest(prompt, 0, 0)], Sampling(1.0, 1.0, 5)
    )
    flatter = score_rollouts(halved, None, made, [5], temperature=1.0, tokens=4096)
    warmer = score_rollouts(plain, None, made, [5], temperature=2.0, tokens=4096)
    assert torch.allclose(flatter.entropy, warmer.entropy, atol=1e-4)


def refused(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        load_model(str(path))
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].hint
    return str(caught.value)


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(tmp_path / "empty")
    weightless = save_random_model(tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    (weightless / "pytorch_model.bin").write_bytes(b"pickle")
    assert "no .safetensors weights" in refused(weightless)
    torn = save_random_model(tmp_path / "torn")
    content = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "cannot be loaded" in refused(torn)
    other = save_random_model(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert "does not hold every weight" in refused(other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own imports
def test_a_copy_of_a_compiled_model_computes_with_its_own_weights(random_model):
    model = load_model(str(random_model))
    adapt_layers(model.model, checkpointing=True, compiled=True)
    reference = model.frozen_copy()
    ids = torch.tensor([[5, 6, 7]])
    with torch.compiler.set_stance("force_eager"), torch.no_grad():  # what is compiled is not the question
        before = reference.hidden_states(ids, None)
        for weight in model.model.parameters():
            weight.mul_(1.5)
        assert torch.equal(reference.hidden_states(ids, None), before)
        assert not torch.equal(model.hidden_states(ids, None), before)


def test_a_model_that_is_loaded_lies_in_memory_as_its_copy_does(random_model):
    """Where weights begin decides how products are rounded: reloaded references would differ from copied ones."""
    model = load_model(str(random_model))
    for one in (model, model.frozen_copy()):
        assert not any(weight.data_ptr() % 64 for weight in one.model.parameters())
