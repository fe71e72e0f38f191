"""Whose grader an evaluation uses: the same in `dgpo eval` and in training."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgpo_cli.config.checks import validate
from dgpo_cli.config.compose import compose
from dgpo_cli.config.evaluation_reward import reward_of_evaluation
from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.config.stored import save
from dgpo_cli.errors import ConfigError

FUNCTION = RewardConfig("function", "r.py:f")


@pytest.mark.parametrize(
    ("overrides", "grader"),
    [
        (["benchmark=math500"], RewardConfig("robust")),
        (["benchmark=math500", "reward=exact"], RewardConfig("exact")),
        (["benchmark=math500", "reward.path=r.py:f"], FUNCTION),
        (["reward.path=r.py:f"], FUNCTION),
        (["benchmark.reward=function", "reward.path=r.py:f"], FUNCTION),
        ([], RewardConfig("exact")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_training_and_evaluation_take_the_same_grader(overrides: list[str], grader: RewardConfig) -> None:
    for command in ("train", "eval"):
        assert reward_of_evaluation(compose(command, overrides)) == grader


def test_training_may_be_graded_otherwise_than_its_evaluation() -> None:
    config = compose("train", ["reward.path=r.py:f", "benchmark.reward=exact"])
    assert (config.reward, reward_of_evaluation(config)) == (FUNCTION, RewardConfig("exact"))
    config = compose("train", ["reward=exact", "reward.path=r.py:f", "benchmark.reward=function"])
    assert (config.reward.name, reward_of_evaluation(config)) == ("exact", FUNCTION)


def stored(folder: Path, *overrides: str) -> str:
    """The folder of a run with a checkpoint."""
    model = folder / "checkpoints" / "step_000004" / "model"
    model.mkdir(parents=True)
    (folder / "checkpoints" / "latest").write_text("step_000004\n")
    save(compose("train", list(overrides)), folder / "config.yaml")
    return str(folder)


def test_an_evaluation_of_a_run_is_graded_as_the_runs_own(tmp_path: Path) -> None:
    run = f"model.path={stored(tmp_path / 'run', 'reward.path=r.py:f', 'reward.timeout_score=-1')}"
    assert compose("eval", [run]).reward == RewardConfig("function", "r.py:f", timeout_score=-1.0)
    assert compose("eval", [run, "reward=robust"]).reward == RewardConfig("robust")
    assert compose("eval", [run, "benchmark.reward=exact"]).reward == RewardConfig("exact")
    assert compose("eval", [run, "benchmark=math500"]).reward == RewardConfig("robust")
    own = f"model.path={stored(tmp_path / 'own', 'reward.path=r.py:f', 'benchmark.reward=exact')}"
    assert compose("eval", [own]).reward == RewardConfig("exact")


def test_a_continued_run_keeps_the_grader_of_its_evaluations(tmp_path: Path) -> None:
    run = f"resume={stored(tmp_path, 'reward.path=r.py:f')}"
    for typed in (
        [],
        ["benchmark=digit_chain"],
        ["reward.path=r.py:f"],
        ["benchmark=digit_chain", "reward.path=r.py:f"],
    ):
        assert reward_of_evaluation(compose("train", [run, *typed])) == FUNCTION
    for typed in (["benchmark.reward=exact"], ["reward=exact"]):
        with pytest.raises(ConfigError, match=r"benchmark\.reward differs"):
            compose("train", [run, *typed])
    allowed = compose("train", [run, "reward=exact", "resume_allow=[reward,benchmark.reward]"])
    assert reward_of_evaluation(allowed) == RewardConfig("exact")


def test_an_evaluation_is_graded_by_one() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.reward=exact and reward=robust"):
        compose("eval", ["benchmark.reward=exact", "reward=robust"])


def test_a_function_that_grades_a_benchmark_needs_a_file() -> None:
    problems = validate(compose("train", ["benchmark.reward=function"]), "train")
    assert [problem.message for problem in problems] == [
        "reward.path: benchmark.reward=function needs a file and a function"
    ]


def test_a_file_is_a_benchmark_of_its_own_name_graded_by_the_reward_that_is_typed() -> None:
    for command in ("eval", "train"):
        config = compose(command, ["benchmark=file", "benchmark.path=a/my val.jsonl", "reward.path=r.py:f"])
        assert (config.benchmark.name, config.benchmark.reward) == ("my-val", "function")
    assert compose("eval", ["benchmark=file", "benchmark.path=val.csv"]).reward == RewardConfig("robust")
    problems = validate(compose("eval", ["benchmark=file"]), "eval")
    assert [problem.message for problem in problems] == ["benchmark.path: benchmark=file needs a file"]
