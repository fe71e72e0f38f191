"""The bundled model as a user loads it: its tokenizer, its files, and how much of the task it already solves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dgpo_cli.bundled import bundled_path
from dgpo_cli.data.digit_chain import held_out_problems

PRINTABLE = "".join(map(chr, range(32, 127)))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(bundled_path("tiny"))


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(bundled_path("tiny"))


def whole_chain_accuracy(model: Any, tokenizer: Any, **sampling: Any) -> float:
    problems = held_out_problems()
    prompts = torch.tensor(tokenizer([problem.prompt for problem in problems])["input_ids"])
    ids = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=30, **sampling)
    texts = tokenizer.batch_decode(ids[:, prompts.shape[1] :], skip_special_tokens=True)
    right: list[bool] = [text == problem.completion for text, problem in zip(texts, problems, strict=True)]
    return sum(right) / len(right)


@pytest.mark.parametrize("text", [PRINTABLE, " a  b , c . it's\n\n x", " ", "\n", "9 -5=? +4=?9 -5=4"])
def test_text_survives_encoding_and_decoding_at_one_token_a_character(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


def test_prompt_and_completion_encode_together_as_they_do_apart(tokenizer: Any) -> None:
    problem = held_out_problems()[0]
    apart = tokenizer(problem.prompt)["input_ids"] + tokenizer(problem.completion)["input_ids"]
    assert tokenizer(problem.prompt + problem.completion)["input_ids"] == apart


def test_tokenizer_is_fast_and_its_vocabulary_is_ascii_newline_and_three_special_tokens(tokenizer: Any) -> None:
    assert tokenizer.is_fast
    assert len(tokenizer) == 95 + 1 + 3
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.decode([0, 1]) == "<pad><eos>"


def test_configuration_agrees_with_the_tokenizer(model: Any, tokenizer: Any) -> None:
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 256


def test_model_is_a_small_float32_qwen2_with_tied_embeddings(model: Any) -> None:
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    # Embeddings 99*128; a layer: attention 4*128^2 + 3*128 biases, MLP 3*128*256, two norms of 128; a last norm of 128.
    layer = 4 * 128**2 + 3 * 128 + 3 * 128 * 256 + 2 * 128
    assert sum(weight.numel() for weight in model.parameters()) == 99 * 128 + 2 * layer + 128 == 341_760
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert (bundled_path("tiny") / "model.safetensors").stat().st_size < 2_000_000


def test_files_tell_nothing_about_the_machine_they_were_built_on() -> None:
    config = json.loads((bundled_path("tiny") / "config.json").read_text())
    assert "_name_or_path" not in config


def test_sampled_accuracy_leaves_room_and_signal_for_rl(model: Any, tokenizer: Any) -> None:
    torch.manual_seed(0)
    assert 0.25 <= whole_chain_accuracy(model, tokenizer, do_sample=True, temperature=1.0, top_k=0, top_p=1.0) <= 0.45


def test_greedy_decoding_has_headroom_too(model: Any, tokenizer: Any) -> None:
    assert 0.25 <= whole_chain_accuracy(model, tokenizer, do_sample=False) <= 0.75


def test_bundled_path_names_what_there_is() -> None:
    assert isinstance(bundled_path("tiny"), Path)
    with pytest.raises(ValueError, match=r"'tinny'; there is: tiny"):
        bundled_path("tinny")
