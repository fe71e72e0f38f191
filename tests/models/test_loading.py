"""Loading models: their heads told apart from their bodies, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from model_factory import ARCHITECTURES, byte_level_tokenizer, save_random_model
from safetensors.torch import load_file, save_file

from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.errors import DataError
from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling


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
