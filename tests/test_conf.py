"""Every option of conf/ and every recipe composes, is typed, documented, and finds nothing wrong with itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.checks import validate
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.compose import complete, hydra_ready
from dgpo_cli.config.finish import finish
from dgpo_cli.config.help import default_options
from dgpo_cli.config.overrides import Request, prepare

# Options that ask for something more, with what that is.
NEEDS = {
    ("benchmark", "file"): ["benchmark.path=ROWS_FILE"],
    ("model", "path"): ["model.path=bundled:tiny"],
    ("reference", "path"): ["reference.path=bundled:tiny"],
    ("reference", "none"): ["gating=uniform"],
    ("data", "file"): ["data.path=bundled:digit_chain"],
    ("engine", "openai"): ["engine.url=http://127.0.0.1:8000/v1"],
    ("reward", "function"): ["reward.path=REWARD_FILE:score"],
}
# All options are tried with dgpo train; with the others those that mean something else there.
TRIED = [("train", group) for group in catalogue.groups("train")]
TRIED += [("eval", "benchmark"), ("eval", "engine")]
NOT_MEANT = {("eval", "benchmark", "none"), ("train", "engine", "openai")}


@pytest.fixture(scope="module", autouse=True)
def _one_hydra_for_all() -> Iterator[None]:
    with hydra_ready(Request("train", [])):
        yield


def composed(command: str, overrides: list[str]) -> tuple[Any, Any]:
    request, problems = prepare(command, overrides)
    assert not problems
    request, config = complete(request)
    return finish(command, config, request.overrides), config.hydra.runtime.choices


@pytest.mark.parametrize(("command", "group"), TRIED)
def test_every_option_composes_and_has_no_problem(command: str, group: str, tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def score(prompt, completion, answer): return 1.0\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1 + 1 =", "answer": "2"}\n')
    more_options = ["tiny"] if group == "reference" else []  # a model option, which any reference may name
    for option in [*catalogue.option_files(group), *more_options]:
        more = [
            text.replace("REWARD_FILE", str(reward)).replace("ROWS_FILE", str(rows))
            for text in NEEDS.get((group, option), [])
        ]
        config, choices = composed(command, [f"{group}={option}", *more])
        assert choices[group] == option
        if (command, group, option) not in NOT_MEANT:
            assert validate(config, command) == [], option


@pytest.mark.parametrize("group", [group for group in catalogue.groups("train") if group != catalogue.RECIPES])
def test_an_option_is_called_like_its_file_and_says_what_it_is(group: str) -> None:
    for option, file in catalogue.option_files(group).items():
        values = catalogue.flat_yaml(file)
        name = values.get(f"{group}.name", values.get("name"))
        assert name == ("null" if (group, option) == ("benchmark", "none") else option)
        assert catalogue.first_comment(file)


def test_every_recipe_says_what_it_is() -> None:
    for file in catalogue.option_files(catalogue.RECIPES).values():
        assert catalogue.first_comment(file)


def test_help_finds_the_defaults_that_hydra_finds() -> None:
    for command in COMMANDS:
        _, choices = composed(command, [])
        expected = {group: option for group, option in choices.items() if "hydra/" not in group and option}
        assert default_options(command) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"data": "digit_chain", "reward": "exact", "benchmark": "digit_chain", "gating": "paper"}),
        (["model=qwen32b"], {"data": "dapo_math_17k", "reward": "robust", "benchmark": "aime2024"}),
        (["data=gsm8k"], {"model": "tiny", "reward": "robust", "benchmark": "gsm8k"}),
        (["data.path=x.jsonl"], {"data": "file", "reward": "robust", "benchmark": "none"}),
        (["data.path=x.jsonl", "benchmark=math500", "reward=exact"], {"benchmark": "math500", "reward": "exact"}),
        (["model.path=bundled:tiny"], {"model": "path", "data": "dapo_math_17k", "benchmark": "aime2024"}),
        (["reward.path=x.py:f"], {"reward": "function", "data": "digit_chain"}),
        (["reference.path=bundled:tiny"], {"reference": "path"}),
        (["algo=grpo"], {"gating": "uniform"}),
        (["algo=grpo", "gating=calibrated"], {"gating": "calibrated"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_which_option_follows_which(overrides: list[str], expected: dict[str, str]) -> None:
    _, choices = composed("train", overrides)
    assert {group: choices[group] for group in expected} == expected


def test_the_template_of_a_data_option_wins_over_the_models() -> None:
    config, _ = composed("train", ["model=tiny", "data=gsm8k"])
    assert (config.model.template, config.data.template) == ("plain", "dapo")


def test_a_file_of_ones_own_is_wrapped_in_no_template_unless_asked() -> None:
    bare, _ = composed("train", ["model=qwen7b", "data.path=x.jsonl"])
    assert (bare.model.template, bare.data.template) == ("dapo", "plain")
    asked, _ = composed("train", ["model=qwen7b", "data.path=x.jsonl", "data.template=dapo"])
    assert asked.data.template == "dapo"


def test_training_settings_come_from_the_model_unless_typed() -> None:
    tiny, _ = composed("train", [])
    assert (tiny.steps, tiny.optim.lr, tiny.rollout.group_size) == (65, 5e-4, 8)
    large, _ = composed("train", ["model=qwen7b", "optim.lr=2e-6"])
    assert (large.steps, large.optim.lr, large.rollout.group_size) == (200, 2e-6, 16)


def settings(config: Any) -> tuple[str, bool, int, int]:
    strategy, engine, optim = config.strategy, config.engine, config.optim
    return strategy.name, strategy.activation_checkpointing, engine.batch_size, optim.tokens_per_microbatch


def test_what_makes_a_model_fit_comes_from_it_unless_typed() -> None:
    assert settings(composed("train", [])[0]) == ("single", False, 128, 16384)
    assert settings(composed("train", ["model=qwen3b"])[0]) == ("single", True, 16, 8192)
    typed = ["strategy=ddp", "strategy.activation_checkpointing=false", "engine.batch_size=128"]
    assert settings(composed("train", ["model=qwen32b", *typed])[0]) == ("ddp", False, 128, 16384)
    # A recipe's own values win over the model's.
    recipe, _ = composed("train", ["recipe=reproduce_dgpo_32b"])
    assert settings(recipe) == ("fsdp", True, 8, 22528)
    again, _ = composed("train", ["recipe=reproduce_dgpo_32b", "engine.batch_size=2"])
    assert settings(again) == ("fsdp", True, 2, 22528)


def test_an_evaluation_draws_in_the_units_of_training_unless_a_server_does() -> None:
    for command in ("train", "eval", "rollout"):
        assert composed(command, ["model=qwen7b"])[0].engine.batch_size == 32
        assert composed(command, ["model=qwen7b", "engine.batch_size=5"])[0].engine.batch_size == 5
    server = ["model=qwen7b", "engine=openai", "engine.url=http://127.0.0.1:8000/v1"]
    assert composed("eval", server)[0].engine.batch_size == 128


def test_an_option_or_recipe_of_ones_own_wins_over_what_the_model_brings(tmp_path: Path) -> None:
    for group, option, text in (
        ("engine", "mine", "name: transformers\nbatch_size: 3\n"),
        ("strategy", "mine", "name: ddp\nactivation_checkpointing: false\n"),
        ("recipes", "mine", "# @package _global_\ndefaults:\n  - override /strategy: single\n"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{option}.yaml").write_text(text)
    for typed, expected in (
        (["engine=mine", "strategy=mine"], ("ddp", False, 3, 16384)),
        (["recipe=mine"], ("single", True, 32, 16384)),
    ):
        request, problems = prepare("train", ["model=qwen7b", *typed], [tmp_path])
        assert not problems
        with hydra_ready(request):
            request, config = complete(request)
            assert settings(finish("train", config, request.overrides)) == expected


@pytest.mark.parametrize("recipe", sorted(catalogue.option_files(catalogue.RECIPES)))
def test_every_recipe_composes_and_has_no_problem(recipe: str) -> None:
    config, _ = composed("train", [f"recipe={recipe}"])
    assert validate(config, "train") == []
