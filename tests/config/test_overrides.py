"""What was typed: rewritten where dgpo is shorter than Hydra, and every mistake named with the nearest real thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.command_lines import quoted
from dgpo_cli.config.overrides import parse, prepare


def problems_of(command: str, *texts: str, **options: Any) -> list[tuple[str, str]]:
    return [(p.message, p.hint) for p in prepare(command, list(texts), **options)[1]]


@pytest.mark.parametrize(
    ("typed", "passed_on"),
    [
        (["model.path=org/name"], ["model.path=org/name", "model=path"]),
        (["data.path=a.jsonl"], ["data.path=a.jsonl", "data=file"]),
        (["reference.path=org/name"], ["reference.path=org/name", "reference=path"]),
        (["reward.path=a.py:f"], ["reward.path=a.py:f", "reward=function"]),
        (["data.path=a.jsonl", "data=gsm8k"], ["data.path=a.jsonl", "data=gsm8k"]),
        (["data.path=null"], ["data.path=null"]),
        (["resume=run", "model.path=org/name"], ["resume=run", "model.path=org/name"]),
        (["data.path=x=(1).jsonl"], ["data.path='x=(1).jsonl'", "data=file"]),
    ],
    ids=lambda texts: " ".join(texts),
)
def test_what_hydra_gets(typed: list[str], passed_on: list[str]) -> None:
    request, problems = prepare("train", typed)
    assert (request.overrides, problems) == (passed_on, [])


def test_a_path_alone_selects_its_option_in_a_sweep_too() -> None:
    request, _ = prepare("train", ["data.path=a.jsonl,b.jsonl"], multirun=True)
    assert request.overrides[-1] == "data=file"


def test_recipe_is_the_group_of_the_folder_recipes(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /data: gsm8k\n")
    request, problems = prepare("train", ["recipe=mine", "data.path=a.jsonl"], [tmp_path])
    assert not problems
    assert request.overrides == ["recipes=mine", "data.path=a.jsonl"], "the recipe has chosen the data option"


@pytest.mark.parametrize("text", ["9 -5=? +4=?", "a, b", "[x] {y} (z)", "it's", "a\\", "\\'", "${steps}", "true", ""])
def test_a_prompt_is_taken_literally(text: str) -> None:
    request, problems = prepare("rollout", [f"prompt={text}"])
    assert not problems
    value = parse(request.overrides[0]).value()
    assert isinstance(value, str)
    assert value.replace("\\$", "$") == text


@pytest.mark.parametrize("text", ["a'b", "a\\'b", "a\\", "\\\\", "'", "plain", "a,b=c"])
def test_quoted_text_is_read_back_as_it_was(text: str) -> None:
    assert parse(f"key={quoted(text)}").value() == text


def test_several_benchmarks_of_an_evaluation_are_kept_apart() -> None:
    request, problems = prepare("eval", ["benchmark=[aime2024,math500]"])
    assert request.benchmarks == [["benchmark=aime2024"], ["benchmark=math500"]]
    assert (request.overrides, problems) == (["benchmark=aime2024"], [])


@pytest.mark.parametrize(
    ("command", "typed", "message", "hint"),
    [
        ("train", "optim.lrr=3", "unknown key 'optim.lrr'", "did you mean optim.lr?"),
        ("train", "+optim.lrr=3", "unknown key 'optim.lrr'", "did you mean optim.lr?"),
        ("train", "learning_rate=3", "unknown key 'learning_rate'", "did you mean optim.lr?"),
        ("train", "reccipe=x", "unknown key 'reccipe'", "did you mean recipe=...?"),
        ("train", "limit=3", "dgpo train has no key 'limit'", "it belongs to dgpo rollout"),
        ("eval", "algo=dgpo", "dgpo eval has no key 'algo'", "it belongs to dgpo train, dgpo rollout"),
        ("eval", "recipe=x", "dgpo eval takes no recipe", "dgpo train recipe=NAME"),
        ("train", "algo=dgop", "algo=dgop: there is no such option", "did you mean algo=dgpo?"),
        ("train", "recipe=x", "recipe=x: there is no such option", "options:"),
        ("train", "data=a.jsonl", "data=a.jsonl: there is no such option", "data.path=a.jsonl"),
        ("train", "model=Qwen/Qwen3-8B", "model=Qwen/Qwen3-8B: there is no such option", "model.path=Qwen/Qwen3-8B"),
        ("train", "algo=[grpo,dapo]", "algo takes one option, got [grpo,dapo]", "dgpo train -m algo=grpo,dapo"),
        ("eval", "benchmark=[aime2024,math5000]", "benchmark=math5000: there is no", "did you mean benchmark=math500?"),
        ("train", "optim=adam", "optim is a section, got 'adam'", "set one of its keys, such as optim.lr=..."),
        ("train", "optim={lrr: 1}", "unknown key 'optim.lrr'", "did you mean optim.lr?"),
        ("train", "optim.lr=abc", "optim.lr: expected a number, got 'abc'", "dgpo help optim.lr"),
        ("train", "steps=1.5", "steps: expected a whole number, got 1.5", "dgpo help steps"),
        ("train", "seed=null", "seed: expected a whole number, got null", ""),
        ("train", "overwrite=maybe", "overwrite: expected true or false, got 'maybe'", ""),
        ("train", "optim.betas=[1,b]", "optim.betas: expected a list of numbers, got [1,b]", ""),
        (
            "train",
            "optim.schedule=lin",
            "expected one of constant | linear | cosine, got",
            "schedule=linear",
        ),
        ("train", "seed=1,2", "'seed=1,2' names several values", "dgpo train -m seed=1,2"),
        ("train", "tiny", "cannot read 'tiny': expected KEY=VALUE", "did you mean model=tiny?"),
        ("train", "stepps", "cannot read 'stepps': expected KEY=VALUE", "did you mean steps=...?"),
        ("train", "optim.betas=[0.9,=]", "cannot read 'optim.betas=[0.9,=]'", "quote text"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(command: str, typed: str, message: str, hint: str) -> None:
    [problem] = problems_of(command, typed)
    assert message in problem[0]
    assert hint in problem[1]
    assert "+" not in problem[1]


def test_all_mistakes_are_named_at_once() -> None:
    found = problems_of("train", "optim.lrr=3", "algo=x", "steps=abc", "seed=3", "(=1")
    assert len(found) == 4


def test_each_value_of_a_sweep_is_checked() -> None:
    found = problems_of("train", "algo=grpo,dapoo", "optim.lr=1e-3,abc", "seed=range(0,3)", multirun=True)
    assert [message for message, _ in found] == [
        "algo=dapoo: there is no such option",
        "optim.lr: expected a number, got 'abc'",
    ]


def test_keys_of_hydra_and_groups_of_the_user_are_left_to_hydra(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert problems_of("train", "hydra.run.dir=x", "+mine=y", "~logger", config_dirs=[tmp_path]) == []
