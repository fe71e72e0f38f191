"""A tokenizer and its model speak of the same ids; what lies beyond the embedding is never fed, only masked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from model_factory import byte_level_tokenizer, save_random_model

from dgpo_cli.cli import main
from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.errors import DgpoError
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import Policy, load_policy
from dgpo_cli.processes import SOLO
from dgpo_cli.records.token_spelling import token_speller

KNOWN = len(byte_level_tokenizer())  # 2 special tokens, 256 bytes and the merges of two sentences
CHAT = "{% for turn in messages %}<|im_start|>{{ turn['content'] }}<|im_end|>{% endfor %}<|im_start|>"


def retokenised(folder: Path, change: Callable[[Any], Any]) -> Path:
    """The model of a folder whose tokenizer has grown, and its embedding has not."""
    tokenizer = byte_level_tokenizer()
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tight(tmp_path: Path) -> Path:
    """A model that embeds exactly what its tokenizer knows."""
    return save_random_model(tmp_path / "tight", vocab_size=KNOWN)


def policy_of(folder: Path, **settings: Any) -> Policy:
    return load_policy(ModelConfig(path=str(folder), **settings), Placement(StrategyConfig(), "cpu", SOLO))


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(DgpoError) as caught:
        policy_of(folder, **settings)
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].hint
    return str(caught.value)


def test_ordinary_tokens_beyond_the_embedding_are_refused_at_load(tmp_path: Path) -> None:
    message = refused(save_random_model(tmp_path, vocab_size=KNOWN - 9))
    assert f"has 9 tokens beyond the {KNOWN - 9} that the model embeds: id {KNOWN - 9}" in message


def test_a_fill_token_beyond_the_embedding_is_filled_by_another_that_is_masked(tight: Path, tmp_path: Path) -> None:
    retokenised(tight, lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "[PAD]"}))
    model = load_model(str(tight))
    assert model.tokenizer.pad_token_id >= KNOWN
    assert model.pad_id < model.embedded_ids == KNOWN
    # Prompts and completions of several lengths: batches are padded on both sides.
    run = ["data=digit_chain", "data.size=8", "rollout.max_completion_tokens=8", "benchmark=none", "steps=1"]
    sizes = ["rollout.prompts_per_step=4", "rollout.group_size=2", "optim.lr=0"]
    assert main(["train", f"model.path={tight}", *run, *sizes, f"hydra.run.dir={tmp_path / 'beyond'}"]) == 0


def test_added_tokens_beyond_pass_with_a_warning_until_a_prompt_holds_one(
    tight: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def grow(tokenizer: Any) -> None:
        tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
        tokenizer.chat_template = CHAT

    retokenised(tight, grow)
    policy_of(tight, chat_template=False)
    assert "<|im_start|>" in capfd.readouterr().err
    rows = [{"prompt": "1+1=?", "answer": "2"}, {"prompt": "say <|im_end|>", "answer": "2"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = [f"data.path={tmp_path / 'rows.jsonl'}", "rollout.max_completion_tokens=4", "rollout.group_size=2"]
    typed = ["rollout", f"model.path={tight}", *data, f"hydra.run.dir={tmp_path / 'run'}"]
    assert main([*typed, "model.chat_template=false"]) == 2
    said = capfd.readouterr().err
    assert f"1 of 2 prompts hold a token beyond the {KNOWN} that the model embeds: the first, row 2" in said
    assert main([*typed, "model.chat_template=true"]) == 2
    said = capfd.readouterr().err
    assert "2 of 2 prompts hold a token" in said
    assert "model.chat_template=false" in said


def test_a_stop_that_never_comes_is_warned_of_and_refused_where_it_is_the_only_one(
    tight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tight / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 9999]}))
    assert policy_of(tight).stop_ids >= {0, 9999}
    assert f"is to stop at id 9999, beyond the {KNOWN} ids" in capsys.readouterr().err
    retokenised(tight, lambda tokenizer: tokenizer.add_special_tokens({"eos_token": "[END]"}))
    (tight / "generation_config.json").write_text(json.dumps({"eos_token_id": 9999}))
    assert "no completion would end" in refused(tight)
    assert "model.stop_tokens: '[END]'" in refused(tight, stop_tokens=["[END]"])


def test_rows_that_pad_an_embedding_are_drawn_and_spelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = policy_of(save_random_model(tmp_path, vocab_size=KNOWN + 200))
    assert "beyond" not in capsys.readouterr().err
    assert token_speller(policy.model.tokenizer)(KNOWN + 199) == f"<id:{KNOWN + 199}>"
    assert policy.model.tokenizer.decode([5, KNOWN + 199]) == policy.model.tokenizer.decode([5])


def test_a_tokenizer_with_holes_spells_what_it_knows_and_names_the_rest(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path, vocab_size=700)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    hole, vocabulary[last] = vocabulary[last], 650
    (folder / "tokenizer.json").write_text(json.dumps(content))
    spell = token_speller(load_model(str(folder)).tokenizer)
    assert spell(hole) == f"<id:{hole}>"
    assert spell(650) == last.replace("\u0120", " ")


@pytest.mark.parametrize("gone", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json")])
def test_a_model_without_its_tokenizer_is_refused_at_load(gone: tuple[str, ...], tight: Path) -> None:
    for name in gone:
        (tight / name).unlink()
    assert "has no vocabulary: its files are missing or empty" in refused(tight)


def test_an_unreadable_tokenizer_is_one_error_line(tight: Path) -> None:
    (tight / "tokenizer.json").write_text("{")
    assert f"the tokenizer in {tight} cannot be loaded" in refused(tight)


def test_a_chat_template_that_fails_in_its_own_way_is_an_error_of_the_row(
    tight: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def break_it(tokenizer: Any) -> None:
        tokenizer.chat_template = "{% for turn in messages %}{{ turn['content'] + 1 }}{% endfor %}"

    retokenised(tight, break_it)
    typed = ["rollout", f"model.path={tight}", "model.chat_template=true", "prompt=hello"]
    assert main([*typed, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert "row 1 (id prompt): the tokenizer's chat template refuses it" in capfd.readouterr().err


def test_a_model_that_keeps_nothing_between_tokens_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = transformers.MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "mamba")
    byte_level_tokenizer().save_pretrained(tmp_path / "mamba")
    typed = ["rollout", f"model.path={tmp_path / 'mamba'}", "prompt=hello", "rollout.max_completion_tokens=4"]
    assert main([*typed, f"hydra.run.dir={tmp_path / 'run'}"]) == 1
    assert "returns no past_key_values" in capfd.readouterr().err
