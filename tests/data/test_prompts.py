"""Templates, chat templates, special tokens, stop ids, and prompts that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizer_factory import tokenizer_of

from dgpo_cli.data.prompts import (
    TEMPLATES,
    apply_template,
    make_prompts,
    read_template,
    template_line,
    untokenised_prompts,
)
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.types import Problem


def problem(text: str, index: int = 0) -> Problem:
    return Problem(index, f"id{index}", (("user", text),), "1")


def prompts_of(problems: list[Problem], tokenizer: Any, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "template": "plain",
        "chat_template": False,
        "system_prompt": None,
        "max_context": None,
        "max_completion_tokens": 8,
    }
    return make_prompts(problems, tokenizer, **{**options, **changes})


def test_the_dapo_template_is_the_released_one() -> None:
    [prompt] = prompts_of([problem("What is 1 + 1?")], tokenizer_of(adds_bos=False), template="dapo")
    assert prompt.text == (
        "Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is 1 + 1?\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    )


def test_a_prompt_that_carries_an_instruction_is_not_wrapped_twice() -> None:
    [(_, wrapped)] = apply_template(TEMPLATES["dapo"], (("user", "P {x}"),))
    assert apply_template(TEMPLATES["dapo"], (("user", wrapped),)) == (("user", wrapped),)
    [(_, boxed)] = apply_template(TEMPLATES["boxed"], (("user", wrapped),))
    assert boxed == "P {x}\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert apply_template(TEMPLATES["plain"], (("user", wrapped),)) == (("user", wrapped),)


def test_a_template_file_is_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    path.write_text("Think. {0} {} {problem} {problem}\n")
    [prompt] = prompts_of([problem("{x} {problem}")], tokenizer_of(adds_bos=False), template=str(path))
    assert prompt.text == "Think. {0} {} {x} {problem} {x} {problem}"


def test_templates_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected dapo \| boxed \| plain or a file") as caught:
        read_template("dappo")
    assert caught.value.problems[0].hint == "template=dapo"
    (tmp_path / "t.txt").write_text("no slot")
    with pytest.raises(DataError, match=r"expected \{problem\}"):
        read_template(str(tmp_path / "t.txt"))


def test_plain_text_begins_with_bos_only_where_the_tokenizer_puts_one() -> None:
    [llama] = prompts_of([problem("ab")], tokenizer_of(adds_bos=True))
    [qwen] = prompts_of([problem("ab")], tokenizer_of(adds_bos=False))
    assert (llama.text, llama.token_ids[0]) == ("<s>ab", 0)
    assert (qwen.text, qwen.token_ids) == ("ab", llama.token_ids[1:])
    assert len(llama.token_ids) == 3


def test_a_chat_template_gets_no_special_tokens_on_top() -> None:
    [prompt] = prompts_of([problem("ab")], tokenizer_of(adds_bos=True), chat_template=True, system_prompt="sys")
    assert prompt.text == "<s><|start|>system\nsys<|turn|>\n<|start|>user\nab<|turn|>\n<|start|>assistant\n"
    assert prompt.token_ids.count(0) == 1


def test_a_system_turn_of_the_rows_own_wins() -> None:
    own = Problem(0, "0", (("system", "mine"), ("user", "ab")), "1")
    [prompt] = prompts_of([own], tokenizer_of(adds_bos=False), chat_template=True, system_prompt="sys")
    assert "mine" in prompt.text
    assert "sys<" not in prompt.text


def test_chat_settings_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        prompts_of([problem("a")], tokenizer_of(adds_bos=False, chat=False), chat_template=True)
    with pytest.raises(ConfigError, match="system_prompt"):
        prompts_of([problem("a")], tokenizer_of(adds_bos=False), system_prompt="sys")
    refusing = tokenizer_of(adds_bos=False)
    refusing.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(
        DataError, match=r"row 1 \(id id0\): the tokenizer's chat template refuses it \(no system turn\)"
    ):
        prompts_of([problem("a")], refusing, chat_template=True)


def test_prompts_that_do_not_fit_are_named_with_the_numbers() -> None:
    problems = [problem("a" * 10, 0), problem("a" * 12, 1), problem("a" * 11, 2)]
    tokenizer = tokenizer_of(adds_bos=False)
    assert len(prompts_of(problems, tokenizer, max_context=20)) == 3  # 12 + 8 = 20 fits exactly
    with pytest.raises(DataError) as caught:
        prompts_of(problems, tokenizer, max_context=18, limit_key="benchmark.max_tokens")
    assert [one.message for one in caught.value.problems] == [
        "2 of 3 prompts and benchmark.max_tokens=8 do not fit the model's context of 18: the longest, row 2 (id id1), "
        "has 12 tokens",
    ]
    assert caught.value.problems[0].hint == "benchmark.max_tokens=6"


def test_prompts_for_a_server_have_the_text_that_this_process_would_tokenise() -> None:
    """Without bos: the server's tokenizer puts it there itself."""
    settings: dict[str, Any] = {"template": "boxed", "chat_template": False, "system_prompt": None}
    [there] = untokenised_prompts([problem("ab")], **settings)
    [here] = prompts_of([problem("ab")], tokenizer_of(adds_bos=False), template="boxed")
    assert there.text == here.text
    assert (there.token_ids, there.messages) == ((), ())


def test_chat_prompts_for_a_server_carry_the_turns() -> None:
    settings: dict[str, Any] = {"template": "plain", "chat_template": True, "system_prompt": "sys"}
    own = Problem(0, "0", (("system", "own"), ("user", "cd")), "1")
    given, kept = untokenised_prompts([problem("ab"), own], **settings)
    assert given.messages == (("system", "sys"), ("user", "ab"))
    assert given.text == "sys\n\nab"
    assert kept.messages == own.messages
    with pytest.raises(ConfigError, match="system_prompt"):
        untokenised_prompts([problem("ab")], **{**settings, "chat_template": False})


def test_what_a_template_adds_is_said_in_a_line_with_the_way_out() -> None:
    tokenizer = tokenizer_of(adds_bos=False)
    prompts = prompts_of([problem("1 + 1"), problem("2 + 2")], tokenizer, template="dapo")
    added = len(prompts[0].token_ids) - len(tokenizer("1 + 1", add_special_tokens=False)["input_ids"])
    assert template_line("dapo", prompts, tokenizer, "data.template") == (
        f"template dapo adds {added} tokens a prompt; data.template=plain turns it off; dgpo rollout limit=1 shows it"
    )
    assert template_line("boxed", prompts, tokenizer, "benchmark.template").endswith(" turns it off")  # type: ignore[union-attr]
    assert template_line("plain", prompts, tokenizer, "data.template") is None
    assert template_line("dapo", [], tokenizer, "data.template") is None
