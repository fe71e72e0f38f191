"""What Hydra cannot know: a run's folder as the model, a run that is continued, whose grader an evaluation uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config.compose import compose, hydra_ready
from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.config.overrides import prepare
from dgpo_cli.config.plan import plan
from dgpo_cli.config.stored import save
from dgpo_cli.errors import ConfigError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with data, settings and a checkpoint of its own."""
    folder = tmp_path / "run"
    overrides = ["data.path=d.jsonl", "reward.path=r.py:f", "benchmark=gsm8k", "benchmark.limit=7", "optim.lr=0.25"]
    config = compose("train", [*overrides, "model.chat_template=true", "model.training.steps=11"])
    model = folder / "checkpoints" / "step_000004" / "model"
    model.mkdir(parents=True)
    (folder / "checkpoints" / "latest").write_text("step_000004\n")
    save(config, folder / "config.yaml")
    return folder


def test_a_run_as_the_model_brings_its_checkpoint_data_reward_and_benchmark(run: Path) -> None:
    config = compose("train", [f"model.path={run}"])
    assert config.model.path == str(run / "checkpoints" / "step_000004" / "model")
    assert (config.data.path, config.reward.path) == ("d.jsonl", "r.py:f")
    assert (config.benchmark.name, config.benchmark.limit) == ("gsm8k", 7)
    assert (config.model.chat_template, config.steps) == (True, 11)
    assert config.optim.lr == compose("train", []).optim.lr, "the model's proposal, not what that run was given"


def test_what_is_typed_wins_over_what_a_run_brings(run: Path) -> None:
    config = compose("train", [f"model.path={run}", "benchmark.k=3", "reward=exact", "model.training.steps=5"])
    assert (config.benchmark.name, config.benchmark.limit, config.benchmark.k) == ("gsm8k", 7, 3)
    assert (config.data.path, config.reward.name, config.steps) == ("d.jsonl", "exact", 5)


def test_data_that_is_typed_brings_its_own_reward_and_benchmark(run: Path) -> None:
    config = compose("train", [f"model.path={run}", "data=digit_chain"])
    assert (config.data.name, config.reward.name, config.benchmark.name) == ("digit_chain", "exact", "digit_chain")


def test_a_run_as_the_reference_is_its_checkpoint_alone(run: Path) -> None:
    config = compose("train", [f"reference.path={run}"])
    assert config.reference.path == str(run / "checkpoints" / "step_000004" / "model")
    assert config.data.name == "digit_chain"


def test_an_evaluation_of_a_run_takes_its_benchmark(run: Path) -> None:
    config = compose("eval", [f"model.path={run}"])
    assert (config.benchmark.name, config.benchmark.limit) == ("gsm8k", 7)
    assert compose("eval", [f"model.path={run}", "benchmark=math500"]).benchmark.name == "math500"


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xf3tep_000004", "it holds no name"), (b"stdp_000004", "not there: no folder")]
)
def test_a_run_whose_latest_is_damaged_is_refused_with_what_to_do(run: Path, content: bytes, said: str) -> None:
    (run / "checkpoints" / "latest").write_bytes(content)
    with pytest.raises(ConfigError, match=said) as refused:
        compose("eval", [f"model.path={run}"])
    assert f"dgpo train resume={run} finds the newest intact one" in refused.value.problems[0].hint


def test_a_run_without_a_checkpoint_is_refused(run: Path) -> None:
    (run / "checkpoints" / "latest").unlink()
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        compose("eval", [f"model.path={run}"])


def test_a_run_is_continued_with_its_own_configuration(run: Path) -> None:
    config = compose("train", [f"resume={run}"])
    assert (config.optim.lr, config.data.path, config.resume) == (0.25, "d.jsonl", str(run))


def test_some_keys_may_change_in_a_continued_run(run: Path) -> None:
    changes = ["steps=99", "logger=none", "checkpoint.every=3", "eval.every=2", "strategy.device=cpu"]
    config = compose("train", [f"resume={run}", *changes])
    assert (config.steps, config.logger.name, config.checkpoint.every, config.eval.every) == (99, "none", 3, 2)


def test_the_command_of_the_run_with_resume_added_is_accepted(run: Path) -> None:
    overrides = ["data.path=d.jsonl", "reward.path=r.py:f", "benchmark.limit=7", "optim.lr=0.25", "algo=dgpo"]
    assert compose("train", [f"resume={run}", *overrides]).optim.lr == 0.25


def test_every_other_difference_is_refused_at_once(run: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        compose("train", [f"resume={run}", "optim.lr=0.5", "gating=hellinger", "seed=2"])
    messages = [problem.message for problem in raised.value.problems]
    assert [message.split()[0] for message in messages] == [
        "gating.entropy_exponent",
        "gating.name",
        "optim.lr",
        "seed",
    ]
    assert "0.25 there, 0.5 here" in messages[2]
    allowed = "resume_allow=[gating.entropy_exponent,gating.name,optim.lr,seed]"
    assert [problem.hint.partition("it: ")[2] for problem in raised.value.problems] == ["", "", "", allowed]
    with pytest.raises(ConfigError) as raised:
        compose("train", [f"resume={run}", "benchmark=null"])
    assert raised.value.problems[-1].hint.endswith("resume_allow=[benchmark]"), "one hint that can be typed"


def test_a_difference_that_is_named_is_allowed(run: Path) -> None:
    config = compose("train", [f"resume={run}", "optim.lr=0.5", "gating=hellinger", "resume_allow=[optim.lr,gating]"])
    assert (config.optim.lr, config.gating.name) == (0.5, "hellinger")


def test_an_option_in_a_continued_run_brings_what_it_brings_in_hydra(run: Path) -> None:
    config = compose("train", [f"resume={run}", "algo=grpo", "resume_allow=[algo,gating]"])
    assert (config.algo.kl_coef, config.gating.name) == (0.04, "uniform")


def test_a_continued_run_keeps_what_its_model_brought_under_another_strategy(tmp_path: Path) -> None:
    save(compose("train", ["model=qwen7b", "engine.batch_size=16"]), tmp_path / "config.yaml")
    config = compose("train", [f"resume={tmp_path}", "strategy=fsdp_offload"])
    assert (config.strategy.name, config.strategy.activation_checkpointing) == ("fsdp_offload", True)
    assert config.engine.batch_size == 16
    plain = compose("train", [f"resume={tmp_path}", "strategy=fsdp", "strategy.activation_checkpointing=false"])
    assert not plain.strategy.activation_checkpointing
    with pytest.raises(ConfigError) as raised:
        compose("train", [f"resume={tmp_path}", "engine.batch_size=32"])
    assert "engine.batch_size differs" in raised.value.problems[0].message


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_a_run_cannot_be_continued(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.yaml|no such folder"):
        compose("train", [f"resume={tmp_path / name}"])


@pytest.mark.parametrize(
    ("overrides", "grader", "reward"),
    [
        (["benchmark=math500"], "robust", RewardConfig("robust")),
        (["benchmark=math500", "reward=exact"], "exact", RewardConfig("exact")),
        (["benchmark=math500", "reward.path=r.py:f"], "function", RewardConfig("function", "r.py:f")),
        (["reward.timeout_seconds=3"], "exact", RewardConfig("exact", timeout_seconds=3.0)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_reward_that_is_typed_grades_an_evaluation(overrides: list[str], grader: str, reward: RewardConfig) -> None:
    config = compose("eval", overrides)
    assert (config.benchmark.reward, config.reward) == (grader, reward)


SEVERAL = ["benchmark=[digit_chain,file,file]", "benchmark.path=[null,a/val.jsonl,test.jsonl]"]


def test_several_benchmarks_of_a_run_have_a_path_each_and_share_what_is_typed_once() -> None:
    config = compose("train", [*SEVERAL, "data=file", "data.path=d.jsonl", "reward=exact", "benchmark.k=3"])
    one_each = config.for_each_benchmark()
    assert config.benchmark_names == ["digit_chain", "val", "test"]
    assert [one.benchmark.path for one in one_each] == ["bundled:digit_chain", "a/val.jsonl", "test.jsonl"]
    assert {(one.benchmark.k, one.benchmark.reward) for one in one_each} == {(3, "exact")}
    assert compose("train", SEVERAL).for_each_benchmark()[1].benchmark.reward == "robust", "its own"


def test_the_further_benchmarks_of_a_run_go_with_its_first(tmp_path: Path) -> None:
    save(compose("train", [*SEVERAL, "benchmark.k=3"]), tmp_path / "config.yaml")
    resumed = [f"resume={tmp_path}"]
    assert compose("train", resumed).benchmark_names == ["digit_chain", "val", "test"]
    assert compose("train", [*resumed, *SEVERAL, "benchmark.k=3"]).benchmark_names == ["digit_chain", "val", "test"]
    other = [*resumed, "resume_allow=[benchmark,other_benchmarks]"]
    assert compose("train", [*other, "benchmark=gsm8k"]).benchmark_names == ["gsm8k"]
    assert [one.benchmark.k for one in compose("train", [*other, "benchmark.k=2"]).for_each_benchmark()] == [2, 2, 2]
    with pytest.raises(ConfigError, match=r"other_benchmarks\.1\.path differs .* test\.jsonl there, new\.jsonl here"):
        compose("train", [*resumed, SEVERAL[0], "benchmark.path=[null,a/val.jsonl,new.jsonl]", "benchmark.k=3"])


def evaluated(overrides: list[str]) -> list[Any]:
    """The configurations of `dgpo eval`, one a benchmark, and their notes."""
    request, problems = prepare("eval", overrides)
    with hydra_ready(request):
        planned = plan(request, problems, check=False)
    return [*planned.configs, *planned.notes]


def test_an_evaluation_of_a_run_is_one_on_each_of_its_benchmarks_unless_one_is_named(tmp_path: Path) -> None:
    for name in ("a/val.jsonl", "test.jsonl"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"problem": "1 + 1 =", "answer": "2"}) + "\n")
    paths = f"benchmark.path=[null,{tmp_path / 'a/val.jsonl'},{tmp_path / 'test.jsonl'}]"
    save(compose("train", [SEVERAL[0], paths, "benchmark.k=3"]), tmp_path / "config.yaml")
    model = tmp_path / "checkpoints/step_000001/model"
    model.mkdir(parents=True)
    (tmp_path / "checkpoints/latest").write_text("step_000001")
    run = f"model.path={tmp_path}"
    *configs, note = evaluated([run, "benchmark.limit=2"])
    assert note == "evaluating on each benchmark of the run: digit_chain, val, test"
    assert [(one.benchmark.name, one.benchmark.k, one.benchmark.limit) for one in configs] == [
        *(("digit_chain", 3, 2), ("val", 3, 2), ("test", 3, 2))
    ]
    assert [Path(one.benchmark.path).name for one in configs] == ["bundled:digit_chain", "val.jsonl", "test.jsonl"]
    assert {one.model.path for one in configs} == {str(model)}
    assert {one.reward.name for one in evaluated([run, "reward=exact"])[:3]} == {"exact"}
    for named in (["benchmark=digit_chain"], ["benchmark=file", f"benchmark.path={tmp_path / 'test.jsonl'}"]):
        [config] = evaluated([run, *named])
        assert config.benchmark.k == 1
    [studied] = evaluated([run, "study=localisation", "reference=tiny"])
    assert studied.benchmark.name == "digit_chain"


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="val is named twice"):
        compose("train", ["benchmark=[file,file]", "benchmark.path=[a/val.jsonl,b/val.jsonl]"])
