"""Experiment files: a YAML file says what a command line says, and a whole configuration stands in place of conf/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config.compose import complete, hydra_ready
from dgpo_cli.config.experiment import read_files
from dgpo_cli.config.finish import finish
from dgpo_cli.config.help import answer
from dgpo_cli.config.overrides import prepare
from dgpo_cli.config.plan import plan
from dgpo_cli.config.stored import save
from dgpo_cli.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def composed(command: str, *texts: str) -> Any:
    words = read_files(command, list(texts))
    request, problems = prepare(command, words.overrides, base=words.base, origins=words.origins)
    assert not problems
    with hydra_ready(request):
        request, config = complete(request)
        return finish(command, config, request.overrides, request.base)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("steps: 3\n", ["steps=3"]),
        ("algo: dapo\noptim:\n  lr: 1e-6\n", ["algo=dapo", "optim.lr=1e-06"]),
        ("optim.lr: 0.5\n", ["optim.lr=0.5"]),
        ("algo:\n  name: dapo\n  clip_high: 0.3\n", ["algo=dapo", "algo.clip_high=0.3"]),
        ("benchmark:\n  name: my own\n", ["benchmark.name='my own'"]),
        ("data:\n  path: a b.jsonl\n", ["data.path='a b.jsonl'"]),
        (
            "defaults:\n  - override /algo: grpo\n  - _self_\n  - data: file\nseed: 1\n",
            ["algo=grpo", "data=file", "seed=1"],
        ),
        ("recipe: lora_tiny\n", ["recipe=lora_tiny"]),
        ("logger:\n  tags: [a, 'b c']\n", ["logger.tags=[a,'b c']"]),
        ("overwrite: true\nresume: null\n", ["overwrite=true", "resume=null"]),
        ("hydra:\n  run:\n    dir: o/${seed}\n", ["hydra.run.dir='o/${seed}'"]),
        ("hydra:\n  sweeper:\n    params:\n      seed: 0,1\n", []),
    ],
)
def test_a_file_is_a_command_line(text: str, overrides: list[str]) -> None:
    Path("my.yaml").write_text(text)
    words = read_files("train", ["my.yaml"])
    assert words.overrides == overrides
    assert words.origins == dict.fromkeys(overrides, "my.yaml")


def test_values_for_a_sweep_count_with_m_alone() -> None:
    Path("my.yaml").write_text("hydra:\n  sweeper:\n    params:\n      seed: 0,1\n")
    assert read_files("train", ["my.yaml"], multirun=True).overrides == ["seed=0,1"]


def test_what_is_typed_wins_and_a_later_file_wins_over_an_earlier_one() -> None:
    Path("a.yaml").write_text("algo: dapo\nseed: 1\nsteps: 3\nrecipe: lora_tiny\n")
    Path("b.yml").write_text("seed: 2\nsteps: 4\n")
    words = read_files("train", ["steps=5", "a.yaml", "algo=grpo", "b.yml", "recipe=x"])
    assert words.overrides == ["seed=2", "steps=5", "algo=grpo", "recipe=x"]


def test_a_path_in_a_file_selects_its_option_as_a_typed_one_does() -> None:
    Path("my.yaml").write_text("data:\n  path: rows.jsonl\n  prompt_key: q\nalgo: grpo\n")
    config = composed("train", "my.yaml", "optim.lr=2e-6")
    assert (config.data.name, config.data.prompt_key, config.reward.name) == ("file", "q", "robust")
    assert (config.algo.name, config.gating.name, config.optim.lr) == ("grpo", "uniform", 2e-6)


def test_a_mistake_in_a_file_is_named_with_the_file() -> None:
    Path("my.yaml").write_text("optim:\n  lrr: 1\nalgo: dpao\nsteps: abc\n")
    words = read_files("train", ["my.yaml", "seed=x"])
    _, problems = prepare("train", words.overrides, origins=words.origins)
    assert [(problem.message, problem.hint.split("?")[0]) for problem in problems] == [
        ("my.yaml: unknown key 'optim.lrr'", "did you mean optim.lr"),
        ("my.yaml: algo=dpao: there is no such option", "did you mean algo=dapo"),
        ("my.yaml: steps: expected a whole number, got 'abc'", "dgpo help steps"),
        ("seed: expected a whole number, got 'x'", "dgpo help seed"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no.yaml", None, "no.yaml: there is no such file"),
        ("rows.jsonl", "{}\n", "rows.jsonl: expected KEY=VALUE or a .yaml file"),
        ("a.yaml", "optim:\n  lr: [1\n", "a.yaml line 3: not YAML"),
        ("a.yaml", "- 1\n", "a.yaml: expected keys with values"),
        ("a.yaml", "defaults:\n  - recipes\n", "defaults: expected '- GROUP: OPTION', got '- recipes'"),
    ],
)
def test_a_file_that_says_nothing_is_refused(name: str, text: str | None, message: str) -> None:
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(UsageError) as raised:
        read_files("train", [name])
    assert message in raised.value.problems[0].message


@pytest.fixture
def run_config() -> str:
    """The config.yaml of a run with settings of its own."""
    Path("run").mkdir()
    config = composed("train", "algo=dapo", "seed=7", "optim.lr=0.25", "data.path=a.jsonl", "data.prompt_key=q")
    config.overwrite, config.resume_allow = True, ["optim"]
    save(config, Path("run/config.yaml"))
    return "run/config.yaml"


def test_a_runs_configuration_starts_another_one_like_it(run_config: str) -> None:
    config = composed("train", run_config, "optim.lr=2e-6")
    assert (config.algo.name, config.seed, config.optim.lr, config.data.prompt_key) == ("dapo", 7, 2e-6, "q")
    assert (config.overwrite, config.resume_allow, config.resume) == (False, [], None), "these are of one start"


def test_an_option_typed_beside_it_brings_what_it_brings(run_config: str) -> None:
    config = composed("train", run_config, "algo=dgpo")
    assert (config.algo.name, config.gating.name, config.seed) == ("dgpo", "paper", 7)


def test_another_file_of_rows_is_read_as_the_first_was(run_config: str) -> None:
    config = composed("train", run_config, "data.path=b.jsonl")
    assert (config.data.path, config.data.prompt_key) == ("b.jsonl", "q")
    config = composed("train", run_config, "data=gsm8k")
    assert (config.data.prompt_key, config.reward.name, config.benchmark.name) == ("question", "robust", "gsm8k")


def test_every_job_of_a_sweep_starts_from_it(run_config: str) -> None:
    words = read_files("train", [run_config, "seed=0,1"], multirun=True)
    Path("a.jsonl").write_text('{"q": "1+1", "answer": "2"}\n')
    request, problems = prepare("train", words.overrides, multirun=True, base=words.base)
    with hydra_ready(request):
        configs = plan(request, problems).configs
    assert [(config.seed, config.algo.name, config.optim.lr) for config in configs] == [
        (0, "dapo", 0.25),
        (1, "dapo", 0.25),
    ]


def test_it_is_refused_with_resume_twice_and_for_another_command(run_config: str) -> None:
    for texts, message in (
        ([run_config, "resume=run"], "resume= has a configuration of its own"),
        ([run_config, run_config], "two whole configurations"),
    ):
        with pytest.raises(UsageError, match=message):
            read_files("train", texts)
    for command, hint in (("eval", "dgpo eval model.path=run"), ("compare", "dgpo compare runs=run")):
        with pytest.raises(ConfigError) as raised:
            read_files(command, [run_config])
        assert raised.value.problems[0].hint == hint


def test_a_runs_folder_without_a_key_is_answered_with_both_ways_to_use_it(run_config: str) -> None:
    _, [problem] = prepare("train", ["run"])
    assert "resume=run" in problem.hint
    assert f"dgpo train {run_config}" in problem.hint


def test_a_recipe_of_ones_own_lies_in_recipe_or_in_recipes(tmp_path: Path) -> None:
    text = "defaults:\n  - override /algo: grpo\nsteps: 7\n"
    for place, header in (("recipe/mine", ""), ("recipe/sub/deep", ""), ("recipes/other", "# @package _global_\n")):
        file = tmp_path / f"{place}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(header + text)
    for name in ("mine", "sub/deep", "other"):
        request, problems = prepare("train", [f"recipe={name}"], [tmp_path])
        assert not problems
        with hydra_ready(request):
            request, config = complete(request)
            assert (config.steps, config.algo.name) == (7, "grpo")


def test_a_recipe_without_its_first_line_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for text in ("steps: 7\n", "defaults:\n  - override /algo: grpo\n"):
        (tmp_path / "recipes" / "bare.yaml").write_text(text)
        request, _ = prepare("train", ["recipe=bare"], [tmp_path])
        with hydra_ready(request), pytest.raises(ConfigError) as raised:
            plan(request, [])
        assert raised.value.problems[0].hint == "the first line of a recipe is: # @package _global_"


def test_the_file_that_help_prints_runs_as_the_command_without_overrides() -> None:
    Path("my.yaml").write_text(answer(["recipe"]))
    assert composed("train", "my.yaml") == composed("train")
