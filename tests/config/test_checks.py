"""Settings that do not go together and files that are not there: each is named with what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config.checks import validate, warnings
from dgpo_cli.config.compose import compose
from dgpo_cli.config.engine_groups import Sync
from dgpo_cli.config.groups import ComputeDtype, Device, Dtype, Form, Normalizer, Signal

Change = Callable[[str, dict[str, Any]], Any]  # command, values by dotted path -> configuration


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    overrides = {"train": [], "eval": [], "rollout": [], "compare": ["runs=[.]"]}
    return {command: compose(command, typed) for command, typed in overrides.items()}


@pytest.fixture
def changed(bases: dict[str, Any]) -> Change:
    """A configuration with some values replaced, by dotted path."""

    def change(command: str, values: dict[str, Any]) -> Any:
        config = copy.deepcopy(bases[command])
        for path, value in values.items():
            *parents, leaf = path.split(".")
            node = config
            for parent in parents:
                node = getattr(node, parent)
            setattr(node, leaf, value)
        return config

    return change


@pytest.mark.parametrize("command", ["train", "eval", "rollout", "compare"])
def test_the_defaults_have_no_problem(bases: dict[str, Any], command: str) -> None:
    assert validate(bases[command], command) == []
    assert warnings(bases[command], command) == []


NONE = {"reference.name": "none"}
OPENAI = {"engine.name": "openai", "engine.url": "http://127.0.0.1:8000/v1"}
VLLM = {"engine.name": "vllm"}
TURNS = {**VLLM, "engine.colocated": True}
FUNCTION = {"reward.name": "function", "reward.path": f"{__file__}:score"}
SEVERAL = {"reward.name": "function", "reward.path": ["robust", f"{__file__}:score"]}
WRONG = [
    ("train", {"rollout.group_size": 1}, "rollout.group_size: 1 has no group to compare with"),
    ("train", {"rollout.temperature": 0.0}, "rollout.temperature: expected more than 0 in training"),
    ("train", {"rollout.top_p": 0.0}, "rollout.top_p: expected more than 0 and at most 1, got 0.0"),
    ("train", {"rollout.top_p": 1.5}, "rollout.top_p"),
    ("train", {"steps": 0}, "steps: expected at least 1, got 0"),
    ("train", {"optim.minibatches": 17}, "optim.minibatches: 17 is more than rollout.prompts_per_step=16"),
    ("train", {"optim.betas": [0.9]}, "optim.betas: expected two numbers"),
    ("train", {"optim.betas": [0.9, 1.0]}, "optim.betas: expected two numbers"),
    ("train", {"optim.lr": -1.0}, "optim.lr: expected at least 0"),
    ("train", {"checkpoint.signals": ["SIGTERM", "SIGKILL"]}, "checkpoint.signals: expected names of SIGTERM, SIGINT"),
    ("train", {"algo.clip_low": -0.1}, "algo.clip_low: expected at least 0"),
    ("train", {"algo.clip_high": -0.1}, "algo.clip_high"),
    ("train", {"algo.clip_dual": 1.0}, "algo.clip_dual: expected more than 1"),
    ("train", {"gating.clip": [2.0, 0.5]}, "gating.clip: expected [w_min,w_max]"),
    ("train", {"gating.clip": [1.2, 2.0]}, "gating.clip"),
    ("train", {"gating.clip": [0.5]}, "gating.clip"),
    ("train", {"gating.temperature": 0.0}, "gating.temperature: expected more than 0"),
    ("train", {"gating.top_fraction": 1.2}, "gating.top_fraction"),
    ("train", {"gating.window": 4}, "gating.window: expected an odd number of at least 1, got 4"),
    ("train", {"gating.band": [3.0, 0.1]}, "gating.band: expected [low,high] with low <= high, got [3.0,0.1]"),
    ("train", {"gating.band": [1.0]}, "gating.band"),
    ("train", {"gating.band": [0.1, 3.0], "gating.top_fraction": 0.2}, "gating.band and gating.top_fraction"),
    ("train", {"gating.form": Form.sigmoid, "gating.strength": -2.5}, "gating.strength: expected -2 to 2"),
    (
        "train",
        {"gating.signal": Signal.logratio, "gating.normalizer": Normalizer.saturate},
        "gating.normalizer=saturate: gating.signal=logratio can be below 0",
    ),
    ("train", {"algo.max_probability_change": 0.0}, "algo.max_probability_change: expected more than 0"),
    ("train", {"model.lora.rank": -1}, "model.lora.rank: expected at least 0"),
    ("train", {"model.lora.alpha": 8}, "model.lora.alpha=8: no adapter is trained"),
    ("train", {"model.lora.merge": True}, "model.lora.merge=true: no adapter is trained"),
    ("train", {"model.lora.rank": 4, "model.lora.target_modules": []}, "model.lora.target_modules: expected names"),
    ("eval", {"model.lora.rank": 4}, "model.lora: adapters are trained by dgpo train alone"),
    ("rollout", {"model.lora.merge": True}, "model.lora: adapters are trained by dgpo train alone"),
    ("train", {**NONE}, "gating.signal=hellinger: measured from a reference, but reference=none"),
    ("train", {**NONE, "gating.signal": Signal.entropy, "gating.noise_gate": True}, "gating.noise_gate=true"),
    ("train", {**NONE, "gating.signal": Signal.none, "algo.kl_coef": 0.04}, "algo.kl_coef=0.04"),
    ("train", {**NONE, "gating.signal": Signal.none, "reference.refresh_every": 5}, "reference.refresh_every=5"),
    ("train", {"model.dtype": Dtype.bfloat16}, "model.dtype: weights that are trained stay in float32"),
    ("train", {"checkpoint.keep": 0}, "checkpoint.keep: expected at least 1"),
    ("train", {"engine.batch_size": 0}, "engine.batch_size: expected at least 1"),
    ("train", {"overwrite": True, "resume": "run"}, "overwrite: true deletes the run"),
    ("train", {"data.path": None}, "data.path: data=file needs a file"),
    ("train", {"data.path": "no/such/file.jsonl"}, "data.path: no file 'no/such/file.jsonl'"),
    ("train", {"data.path": "gsm8"}, "data.path: no file 'gsm8'"),
    ("train", {"data.path": "."}, "data.path: expected a file, got the folder '.'"),
    ("train", {"data.path": "bundled:digits"}, "data.path: nothing bundled is called 'bundled:digits'"),
    ("train", {"data.template": "dappo"}, "data.template: no template or file 'dappo'"),
    (
        "eval",
        {"model.dtype": Dtype.bfloat16, "strategy.compute_dtype": ComputeDtype.float32},
        "strategy.compute_dtype=float32: weights in bfloat16 compute in bfloat16",
    ),
    ("train", {"model.path": None}, "model.path: model=path needs a path"),
    ("train", {"model.path": "./nowhere"}, "model.path: no folder './nowhere'"),
    ("train", {"model.path": "a/b/c"}, "model.path: no folder 'a/b/c'"),
    ("train", {"model.path": "qwen7"}, "model.path: no folder 'qwen7'"),
    ("train", {"model.path": "bundled:small"}, "model.path: nothing bundled"),
    ("train", {"reference.name": "path"}, "reference.path: reference=path needs a path"),
    ("train", {"reward.name": "exakt"}, "reward.name: there is no grader 'exakt'"),
    ("train", {"reward.name": "function"}, "reward.path: reward=function needs a file and a function"),
    ("train", {"reward.name": "function", "reward.path": "r.py"}, "reward.path: expected FILE.py:FUNCTION"),
    ("train", {"reward.name": "function", "reward.path": "r.py:f"}, "reward.path: no file 'r.py'"),
    (
        "train",
        {"reward.name": "function", "reward.path": 3},
        "reward.path: expected FILE.py:FUNCTION or a list of such",
    ),
    ("train", {"reward.name": "function", "reward.path": []}, "reward.path: reward=function needs a file"),
    ("train", {**SEVERAL, "reward.path": ["robst", "exact"]}, "reward.path: expected FILE.py:FUNCTION or a grader"),
    ("train", {**SEVERAL, "reward.path": ["exact", "exact"]}, "reward.path: 'exact' cannot name a reward here"),
    ("train", {**SEVERAL, "reward.weights": [1.0]}, "reward.weights: 1 for 2 rewards: [1.0]"),
    ("train", {**SEVERAL, "reward.weights": [1.0, -0.5]}, "reward.weights: expected numbers of at least 0"),
    ("train", {**FUNCTION, "reward.workers": 0}, "reward.workers: expected at least 1, got 0"),
    ("train", {"reward.timeout_score": -1.0}, "reward.timeout_score: reward=exact gives no scores"),
    ("train", {**FUNCTION, "reward.timeout_score": float("nan")}, "reward.timeout_score: expected a finite number"),
    ("eval", {"benchmark.pass_at": [1, 8]}, "benchmark.pass_at: [8] is more than benchmark.k=1"),
    ("eval", {"benchmark.name": None, "benchmark.path": None}, "benchmark: none is chosen"),
    ("eval", {"benchmark.path": "no.csv"}, "benchmark.path: no file 'no.csv'"),
    ("eval", {"benchmark.completions": "no.jsonl"}, "benchmark.completions: no file 'no.jsonl'"),
    ("eval", {"benchmark.reward": "exakt"}, "benchmark.reward: there is no grader 'exakt'"),
    ("eval", {"benchmark.top_p": 0.0}, "benchmark.top_p"),
    ("eval", {**OPENAI, "engine.url": None}, "engine.url: engine=openai needs the address of a server"),
    ("eval", {**OPENAI, "engine.url": "127.0.0.1:8000/v1"}, "engine.url: expected http://HOST:PORT/v1, got '127"),
    ("eval", {**OPENAI, "engine.url": "http://host:port/v1"}, "engine.url: expected http://HOST:PORT/v1"),
    ("eval", {**OPENAI, "engine.url": "http://me:secret@host/v1"}, "engine.url: expected an address without cred"),
    ("eval", {**OPENAI, "engine.url": "http://host/v1/completions"}, "engine.url: expected the API's base address"),
    ("eval", {**OPENAI, "engine.api_key_env": "sk-secret"}, "engine.api_key_env: expected the name of an environ"),
    ("eval", {**OPENAI, "engine.concurrency": 0}, "engine.concurrency: expected at least 1"),
    ("eval", {**OPENAI, "engine.retries": -1}, "engine.retries: expected at least 0"),
    ("eval", {**OPENAI, "engine.timeout_seconds": 0.0}, "engine.timeout_seconds: expected more than 0"),
    ("eval", {"engine.name": "opena"}, "engine.name: there is no engine 'opena'"),
    ("train", {**VLLM, "rollout.top_p": 0.9}, "rollout.top_p=0.9: engine=vllm gives log-probs of the cut distribution"),
    ("train", {**VLLM, "engine.replicas": 0}, "engine.replicas: expected at least 1"),
    ("train", {**VLLM, "engine.tensor_parallel": 0}, "engine.tensor_parallel: expected at least 1"),
    ("train", {**VLLM, "engine.gpu_memory_fraction": 1.2}, "engine.gpu_memory_fraction: expected more than 0"),
    ("train", {**VLLM, "engine.start_seconds": 0.0}, "engine.start_seconds: expected more than 0"),
    ("train", {**VLLM, "engine.max_model_len": 8}, "engine.max_model_len: 8 leaves no room for a prompt beside"),
    ("eval", {**VLLM, "engine.max_model_len": 8}, "engine.max_model_len: 8 leaves no room for a prompt beside"),
    ("train", {**VLLM, "engine.python": "no/python"}, "engine.python: expected the path of an interpreter, got 'no/p"),
    ("train", {**VLLM, "engine.devices": ["0"], "engine.replicas": 2}, "engine.devices: 1 for 2 servers on 1 devices"),
    ("train", {**VLLM, "engine.devices": ["0", "0"], "engine.replicas": 2}, "engine.devices: [0,0] names one twice"),
    ("train", {**VLLM, "engine.extra_args": ["--port=1"]}, "engine.extra_args: --port is said by dgpo itself"),
    (
        "train",
        {**TURNS, "engine.extra_args": ["--enable-sleep-mode"]},
        "engine.extra_args: --enable-sleep-mode is said",
    ),
    ("train", {**TURNS, "engine.urls": ["http://h:1"]}, "engine.colocated: the servers of engine.urls are not dgpo's"),
    ("train", {**TURNS, "engine.devices": ["0"]}, "engine.devices: colocated servers are on the trainer's own GPUs"),
    ("train", {**TURNS, "rollout.lag": 1}, "rollout.lag=1: a colocated engine sleeps while the trainer works"),
    ("train", {**TURNS, "eval.overlap": True}, "eval.overlap=true: a colocated engine sleeps while the trainer works"),
    ("train", {**TURNS, "engine.sync": Sync.group}, "engine.sync=group: nccl connects no two processes on one GPU"),
    ("train", {**TURNS, "strategy.device": Device.cpu}, "engine.colocated: strategy.device=cpu"),
    ("train", {**TURNS, "engine.replicas": 2}, "engine.colocated: 2 servers on 1 GPUs each need 2"),
    ("train", {**VLLM, "engine.urls": ["127.0.0.1:8000"]}, "engine.urls: expected http://HOST:PORT, got '127.0"),
    ("train", {**VLLM, "engine.urls": ["http://h:x"]}, "engine.urls: expected http://HOST:PORT, got 'http://h:x'"),
    ("train", {**VLLM, "engine.urls": ["http://h:1/v1"]}, "engine.urls: expected http://HOST:PORT"),
    ("eval", {**VLLM, "engine.urls": ["http://me:secret@h:1"]}, "engine.urls: expected addresses without credentials"),
    ("train", {**VLLM, "engine.urls": ["http://h:1", "http://h:1/"]}, "engine.urls: http://h:1 is named twice"),
    ("train", {**OPENAI}, "engine=openai: only dgpo eval takes it"),
    ("rollout", {**OPENAI, "reference.name": "none"}, "engine=openai: only dgpo eval takes it"),
    ("rollout", {"reference.name": "initial"}, "reference=initial"),
    ("rollout", {"limit": 0}, "limit: expected at least 1"),
    ("compare", {"runs": []}, "runs: no folder is given"),
    ("compare", {"runs": ["nowhere"]}, "runs: no folder 'nowhere'"),
]


@pytest.mark.parametrize(("command", "values", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_does_not_go_together_is_named(
    changed: Change, command: str, values: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    problems = validate(changed(command, values), command)
    assert len(problems) == 1
    assert problems[0].message.startswith(message)
    assert problems[0].hint


@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("train", {**NONE, "gating.signal": Signal.entropy}),
        ("train", {**NONE, "gating.signal": Signal.surprisal}),
        ("train", {**NONE, "gating.signal": Signal.none, "gating.noise_gate": True}),  # uniform credit has no gate
        ("train", {"gating.clip": [0.5, 2.0], "gating.top_fraction": 1.0}),
        ("train", {"model.path": "Qwen/Qwen2.5-7B", "data.path": "openai/gsm8k"}),
        ("train", {"rollout.top_p": 0.9}),
        ("eval", {**VLLM, "benchmark.top_p": 0.9}),  # nothing is learned from its log-probs
        ("rollout", {**VLLM, "rollout.top_p": 0.9, "reference.name": "none"}),
        ("train", {**VLLM, "engine.replicas": 2, "engine.tensor_parallel": 2, "engine.devices": list("4567")}),
        ("train", {**VLLM, "engine.urls": ["http://10.0.0.1:8000", "http://10.0.0.2:8000/"]}),
        ("train", {**VLLM, "engine.extra_args": ["--max-num-seqs", "64"]}),
        ("eval", {"model.dtype": Dtype.bfloat16}),
        ("eval", {"benchmark.temperature": 0.0}),
        ("rollout", {"rollout.group_size": 1}),
        ("rollout", {"prompt": "1 + 1", "data.path": None}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_goes_together_is_let_through(changed: Change, command: str, values: dict[str, Any]) -> None:
    assert validate(changed(command, values), command) == []


def test_a_mistyped_folder_is_no_hub_id_where_its_parent_is_a_folder(
    changed: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    [problem] = validate(changed("train", {"model.path": "outputs/modle"}), "train")
    assert problem.message == "model.path: no folder 'outputs/modle'"


def test_a_folder_without_a_model_is_named(changed: Change, tmp_path: Path) -> None:
    [problem] = validate(changed("train", {"model.path": str(tmp_path)}), "train")
    assert "holds no config.json" in problem.message


def test_stored_completions_need_no_model_and_no_k(changed: Change, tmp_path: Path) -> None:
    file = tmp_path / "completions.jsonl"
    file.touch()
    values = {"benchmark.completions": str(file), "model.path": None, "benchmark.pass_at": [1, 64]}
    assert validate(changed("eval", values), "eval") == []


def test_top_p_in_training_is_a_warning(changed: Change) -> None:
    [text] = warnings(changed("train", {"rollout.top_p": 0.9}), "train")
    assert "biased" in text


def test_a_window_without_a_bound_is_a_warning(changed: Change) -> None:
    window = {"gating.normalizer": Normalizer.window, "gating.signal": Signal.entropy}
    [text] = warnings(changed("train", window), "train")
    assert "gating.clip=[0.2,5]" in text
    assert warnings(changed("train", window | {"gating.clip": [0.2, 5.0]}), "train") == []


def test_problems_are_reported_together(changed: Change) -> None:
    values = {"steps": 0, "rollout.group_size": 1, "model.path": None, "reward.name": "x"}
    assert len(validate(changed("train", values), "train")) == 4
