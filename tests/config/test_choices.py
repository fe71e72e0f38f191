"""What was typed beside what else was chosen, asked as the program asks: a key that changes nothing is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.compose import hydra_ready
from dgpo_cli.config.idle_rules import RULES
from dgpo_cli.config.overrides import prepare
from dgpo_cli.config.plan import plan
from dgpo_cli.errors import DgpoError


def asked(command: str, *texts: str, multirun: bool = False) -> tuple[list[str], list[str]]:
    """The messages and hints of the errors, and the notes, of a command line."""
    try:
        request, problems = prepare(command, list(texts), multirun=multirun)
        if problems:
            return [f"{problem.message} [{problem.hint}]" for problem in problems], []
        with hydra_ready(request):
            return [], list(plan(request, problems).notes)
    except DgpoError as error:
        return [f"{problem.message} [{problem.hint}]" for problem in error.problems], []


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl", "r.py"):
        (tmp_path / name).write_text('{"problem": "1", "answer": "1"}\n')


IDLE = [
    ("train", "benchmark.path=a.jsonl", ["benchmark=none"], "there is no benchmark"),
    ("train", "eval.every=2", ["benchmark=none"], "there is no benchmark"),
    ("train", "eval.overlap=true", [], "draws where the trainer computes"),
    ("train", "benchmark.k=2", ["eval.k=3"], "eval.k=3 wins over it"),
    ("train", "benchmark.completions=a.jsonl", [], "training draws completions of its own"),
    ("train", "gating.temperature=1", ["algo=grpo"], "uniform credit has no weights to shape"),
    ("train", "gating.control=permute", ["gating=uniform"], "uniform credit"),
    ("train", "gating.temperature=1", ["gating=top_entropy"], "gives the chosen tokens equal weights"),
    ("train", "gating.noise_gate=true", ["gating=rsi"], "gating.band=[0.1,3.0] gives the chosen tokens equal weights"),
    ("train", "gating.temperature=1", ["gating=rarity"], "gating.form=linear has no temperature"),
    ("train", "gating.strength=1", [], "gating.form=softmax has a temperature in its place"),
    ("train", "gating.window=9", [], "gating.normalizer=none looks at no window"),
    ("train", "algo.clip_dual=3", ["algo=cispo"], "is bounded by algo.clip_high"),
    ("train", "gating.score_policy=current", [], "a step has one update"),
    ("train", "reference=tiny", ["algo=dapo"], "measure nothing from one"),
    ("train", "algo.dynamic_sampling.max_refills=2", ["algo=grpo"], "dynamic sampling is off"),
    ("train", "algo.overlong.buffer_tokens=4", ["algo=grpo"], "the overlong punishment is off"),
    ("train", "logger.project=p", ["logger=none"], "nothing goes to W&B"),
    ("train", "optim.final_lr_fraction=0.5", ["optim.schedule=constant"], "a constant schedule has no end"),
    ("train", "optim.grad_norms_every=5", [], "there is no KL penalty"),
    ("train", "optim.grad_cos_every=5", ["algo=grpo"], "uniform credit has no weights to shape"),
    ("train", "strategy.stall_seconds=8", [], "strategy=single has one process"),
    ("train", "strategy.gather_for_generation=false", [], "the whole model in each process"),
    ("train", "engine.retries=2", [], "engine=transformers asks no server"),
    ("train", "engine.correction=mask", [], "so every factor is 1"),
    ("train", "engine.cap=3", ["engine.correction=none"], "so every factor is 1"),
    ("train", "engine.cap=3", ["engine.correction=none", "rollout.lag=1"], "corrects nothing"),
    ("rollout", "engine.cap=3", [], "nothing is trained here"),
    ("train", "engine.replicas=2", [], "engine=transformers asks no server"),
    ("train", "engine.urls=[http://127.0.0.1:1]", [], "engine=transformers asks no server"),
    ("train", "engine.replicas=2", ["engine=vllm", "engine.urls=[http://127.0.0.1:1]"], "engine.urls run already"),
    ("train", "engine.batch_size=2", ["engine=vllm"], "draws each completion by itself"),
    ("train", "engine.max_tokens_key=max_tokens", ["engine=vllm"], "engine=vllm does not look at it"),
    ("train", "engine.sync_folder=x", ["engine=vllm", "engine.sync=group"], "engine.sync=group writes no files"),
    ("eval", "engine.sync=group", ["engine=vllm"], "nothing is trained here"),
    ("eval", "strategy.threads=2", ["engine=vllm", "engine.urls=[http://127.0.0.1:1]"], "and run already"),
    ("eval", "engine.devices=[0]", ["engine=openai", "engine.url=http://127.0.0.1:1/v1"], "does not look at it"),
    ("rollout", "rollout.lag=1", [], "nothing is trained here"),
    ("train", "reward.path=r.py:f", ["reward=exact"], "calls no function"),
    ("train", "reward.timeout_seconds=3", [], "reward=exact answers at once"),
    ("train", "reward.workers=3", [], "reward=exact answers at once"),
    ("train", "reward.weights=[1]", [], "reward=exact calls no function"),
    ("train", "reward.weights=[1]", ["reward.path=r.py:f"], "there is one reward"),
    ("train", "data.size=9", ["data.path=a.jsonl"], "none are generated"),
    ("train", "data.filler=2", ["data.path=a.jsonl"], "none are generated"),
    ("train", "data.split=test", [], "is not on the hub"),
    ("train", "benchmark.chain_steps=4", ["benchmark=aime2024"], "benchmark=aime2024 holds rows"),
    ("eval", "benchmark.filler=2", ["benchmark=aime2024"], "benchmark=aime2024 holds rows"),
    ("eval", "data.chain_steps=4", ["benchmark=aime2024"], "benchmark=aime2024 holds rows"),
    ("train", "model.template=boxed", [], "data.template=plain wins over it"),
    ("train", "resume_allow=[optim.lr]", [], "no run is continued"),
    ("eval", "data.limit=3", [], "evaluations read a benchmark"),
    ("eval", "engine.api_key_env=sk-secret", [], "asks no server"),
    ("eval", "seed=3", ["benchmark=aime2024", "benchmark.completions=a.jsonl"], "stored completions are graded"),
    ("eval", "benchmark.top_p=0.5", ["benchmark.temperature=0"], "benchmark.temperature=0 is greedy"),
    ("rollout", "benchmark=gsm8k", [], "rollouts are sampled from data"),
    ("rollout", "algo.clip_low=0.1", [], "nothing is trained here"),
    ("rollout", "algo.max_probability_change=0.1", [], "nothing is trained here"),
    ("rollout", "reward=exact", ["prompt=x"], "the prompt is the one that was typed"),
    ("rollout", "model=tiny", ["rollouts=a.jsonl"], "stored rollouts are read"),
]


@pytest.mark.parametrize(("command", "key", "beside", "why"), IDLE, ids=lambda value: str(value)[:40])
def test_a_key_that_changes_nothing_is_an_error(command: str, key: str, beside: list[str], why: str) -> None:
    [error], _ = asked(command, key, *beside)
    assert error.startswith(key.partition("=")[0])
    assert "changes nothing" in error
    assert why in error
    assert "secret" not in error


def test_what_asks_for_nothing_is_no_error() -> None:
    nothing = ["eval.k=null", "eval.every=0", "logger.tags=[]", "gating.control=none", "reference.path=null"]
    assert asked("train", "benchmark=none", "logger=none", "algo=dapo", *nothing) == ([], [])
    assert asked("eval", "benchmark.temperature=0", "benchmark.top_p=1") == ([], [])


def test_a_function_that_grades_the_evaluation_alone_is_no_idle_key() -> None:
    assert asked("train", "reward=exact", "benchmark.reward=function", "reward.path=r.py:f") == ([], [])
    assert asked("eval", "benchmark.reward=function", "reward.path=r.py:f") == ([], [])
    assert asked("eval", "reward.path=r.py:f") == ([], [])


def test_a_key_that_counts_in_some_jobs_of_a_sweep_is_only_said() -> None:
    problems, notes = asked("train", "algo=grpo,dgpo", "gating.temperature=1", multirun=True)
    assert not problems
    assert notes == ["gating.temperature=1 changes nothing: uniform credit has no weights to shape (in 1 of 2 jobs)"]
    problems, _ = asked("train", "algo=grpo,dapo", "gating.temperature=1", multirun=True)
    assert len(problems) == 1


def test_every_rule_speaks_of_keys_that_there_are() -> None:
    coming = {"reward.timeout_score"}  # counts with the key beside it
    for rule in RULES:
        for name in set(rule.keys) - coming:
            known = {key for command in rule.commands for key in catalogue.keys(command)}
            assert name.rstrip(".") in known, name


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["benchmark.path=a.jsonl"], "benchmark.path=a.jsonl: one value for 2 benchmarks (aime2024, aime2025)"),
        (["benchmark.completions=a.jsonl"], "benchmark.completions=a.jsonl: one value for 2 benchmarks"),
        (["benchmark.hub=x/y"], "benchmark.hub=x/y: one value for 2 benchmarks"),
        (["benchmark.name=x"], "benchmark.name=x: one value for 2 benchmarks"),
        (["benchmark.path=[a.jsonl]"], "benchmark.path: one value for 2 benchmarks"),
        (["benchmark.path=[a.jsonl,b.jsonl,a.jsonl]"], "benchmark.path: 3 values for 2 benchmarks"),
    ],
)
def test_one_file_never_serves_two_benchmarks(texts: list[str], message: str) -> None:
    [error], _ = asked("eval", "benchmark=[aime2024,aime2025]", *texts)
    assert error.startswith(message)


def test_each_benchmark_takes_its_own_file() -> None:
    request, problems = prepare("eval", ["benchmark=[aime2024,aime2025]", "benchmark.path=[a.jsonl,b.jsonl]"])
    assert not problems
    with hydra_ready(request):
        configs = plan(request, problems).configs
    assert [(one.benchmark.name, one.benchmark.path) for one in configs] == [
        ("aime2024", "a.jsonl"),
        ("aime2025", "b.jsonl"),
    ]


def test_one_file_for_the_benchmarks_of_a_sweep_is_refused() -> None:
    errors, _ = asked("eval", "benchmark=aime2024,aime2025", "benchmark.path=a.jsonl", multirun=True)
    assert errors[0].startswith("benchmark.path=a.jsonl: one value for 2 of benchmark= (aime2024, aime2025)")
    errors, _ = asked("eval", "benchmark=[aime2024,aime2024]")
    assert "aime2024 is named twice" in errors[0]


def test_stored_completions_need_the_name_of_a_benchmark() -> None:
    [error], _ = asked("eval", "benchmark.completions=a.jsonl")
    assert error.startswith("benchmark.completions=a.jsonl: of which benchmark?")
    assert "benchmark=NAME" in error
    own = ["benchmark=none", "benchmark.name=mine", "reward=robust"]
    assert asked("eval", "benchmark.completions=a.jsonl", *own) == ([], [])


def test_a_file_under_a_name_that_nobody_gave_it_is_said() -> None:
    problems, [note] = asked("eval", "benchmark.path=a.jsonl")
    assert not problems
    assert "read, graded (exact) and shown as those of digit_chain" in note


NULLABLE = {
    "train": ("benchmark", "logger", "recipe", "strategy"),
    "eval": ("reference",),
    "rollout": ("reference", "benchmark"),
}


@pytest.mark.parametrize("command", ["train", "eval", "rollout"])
def test_null_none_and_taking_out_choose_nothing_where_nothing_is_allowed(command: str) -> None:
    for group in [*catalogue.groups(command), *(["recipe"] if command == "train" else [])]:
        group = "recipe" if group == catalogue.RECIPES else group
        for text in (f"{group}=null", f"{group}=none", f"~{group}", f"+{group}=null"):
            problems, _ = asked(command, text)
            assert len(problems) == (group not in NULLABLE[command]), (text, problems)
            assert not any("internal" in problem or "bug" in problem for problem in problems)


@pytest.mark.parametrize("command", ["train", "eval", "rollout", "compare"])
def test_no_value_of_a_group_is_an_internal_error(command: str) -> None:
    for group in [*catalogue.groups(command), "runs"]:
        values = ("''", "[]", "{}", "[null]", "None", "{a:1}")
        for text in (
            *(f"{group}={value}" for value in values),
            f"{group}@x=null",
            f"{group}.name=null",
            f"~{group}.name",
        ):
            problems, _ = asked(command, text)
            assert not any("internal" in problem or "bug" in problem for problem in problems), text
