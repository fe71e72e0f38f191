"""What a single key's type cannot say: ranges, settings that do not go together, files that are not there.

`validate` returns everything that is wrong, each with what to do; `warnings` what is merely risky. Each check is a
small function from a typed configuration to problems; `CHECKS` says which command is asked which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dgpo_cli.command_lines import override
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import CompareConfig, EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.groups import (
    BenchmarkConfig,
    ComputeDtype,
    DataConfig,
    Dtype,
    EngineConfig,
    GatingConfig,
    RewardConfig,
    Signal,
)
from dgpo_cli.config.lora_checks import adapter_folder, holds_adapter, trained_adapter, untrained_adapter
from dgpo_cli.config.strategy_checks import one_process, several_processes
from dgpo_cli.config.wandb_checks import wandb_names
from dgpo_cli.errors import Problem

DATA_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
TEMPLATES = ("dapo", "boxed", "plain")
BUNDLED = {"model": ("bundled:tiny",), "data": ("bundled:digit_chain",)}
NEEDS_REFERENCE = (Signal.hellinger, Signal.hellinger_root, Signal.kl, Signal.logratio)


def validate(config: Any, command: str) -> list[Problem]:
    """Every problem of a typed configuration, before anything starts."""
    return [problem for check in CHECKS[command] for problem in check(config)]


def warnings(config: Any, command: str) -> list[str]:
    """What the command should say at its start."""
    found = []
    if command == "train" and config.rollout.top_p != 1:
        found.append(
            f"rollout.top_p={config.rollout.top_p}: tokens are drawn from a cut distribution, so the importance ratio "
            "and the policy gradient are biased; 1.0 is unbiased"
        )
    if command == "train" and config.gating.signal is Signal.none and config.gating.control.name != "none":
        found.append(
            f"gating.control={config.gating.control.name}: uniform credit has no weights to move, so it changes nothing"
        )
    if command == "train" and config.model.lora.rank and credits_divergence(config.gating):
        found.append(
            f"model.lora.rank={config.model.lora.rank} with gating={config.gating.name}: under LoRA, credit from the "
            "distance to a reference may degenerate to uniform, or to a few positions that have nothing to do with the "
            "task (arXiv 2606.00257): watch credit/ess and credit/max, and compare with gating.control=permute"
        )
    return found


def credits_divergence(gating: GatingConfig) -> bool:
    """Whether a distance to the reference shapes credit."""
    return gating.signal is not Signal.none and (gating.signal in NEEDS_REFERENCE or gating.noise_gate)


# Ranges of single keys: (key, is it right, what was expected).

Rule = tuple[str, Callable[[Any], bool], str]


def at_least(low: float, *names: str) -> list[Rule]:
    return [(name, lambda value: value >= low, f"at least {low}") for name in names]


def above(low: float, *names: str) -> list[Rule]:
    return [(name, lambda value: value > low, f"more than {low}") for name in names]


def a_share(*names: str) -> list[Rule]:
    return [(name, lambda value: 0 < value <= 1, "more than 0 and at most 1") for name in names]


TRAIN_RULES: list[Rule] = [
    *at_least(1, "steps", "rollout.prompts_per_step", "rollout.max_completion_tokens", "optim.minibatches"),
    *at_least(1, "optim.epochs", "optim.tokens_per_microbatch", "optim.max_nonfinite", "checkpoint.keep", "eval.k"),
    *at_least(1, "eval.limit", "algo.overlong.buffer_tokens", "model.lora.alpha"),
    *at_least(0, "algo.clip_low", "algo.clip_high", "algo.kl_coef", "optim.lr", "optim.final_lr_fraction"),
    *at_least(0, "optim.grad_norms_every"),
    *at_least(0, "optim.warmup_steps", "optim.weight_decay", "optim.grad_clip", "checkpoint.every", "eval.every"),
    *at_least(0, "logger.completions_every"),
    *at_least(-1, "logger.report_every"),
    *at_least(0, "checkpoint.grace_seconds", "reference.refresh_every", "algo.dynamic_sampling.max_refills"),
    *at_least(0, "model.lora.rank"),
    *above(0, "gating.temperature", "optim.eps"),
    *above(1, "algo.clip_dual"),
    *a_share("rollout.top_p", "gating.top_fraction"),
]
ROLLOUT_RULES: list[Rule] = [
    *at_least(1, "limit", "rollout.group_size", "rollout.max_completion_tokens", "tokens_per_microbatch"),
    *at_least(0, "rollout.temperature"),
    *at_least(2, "vocabulary_size"),
    *above(0, "gating.temperature"),
    *a_share("rollout.top_p", "gating.top_fraction"),
]
DATA_RULES: list[Rule] = at_least(1, "data.limit", "data.size")
BENCHMARK_RULES: list[Rule] = [
    *at_least(1, "benchmark.k", "benchmark.max_tokens", "benchmark.limit"),
    *at_least(0, "benchmark.temperature"),
    *a_share("benchmark.top_p"),
]
COMMON_RULES: list[Rule] = [
    *at_least(1, "engine.batch_size", "engine.concurrency", "strategy.threads"),
    *at_least(1, "strategy.num_processes"),
    *above(0, "strategy.connect_seconds", "strategy.stall_seconds"),
    *at_least(0, "engine.retries"),
    *above(0, "reward.timeout_seconds", "engine.timeout_seconds"),
]
COMPARE_RULES: list[Rule] = [("compare.alpha", lambda value: 0 < value < 1, "more than 0 and less than 1")]


def _ranges(*rules: list[Rule]) -> Callable[[Any], Iterator[Problem]]:
    def check(config: Any) -> Iterator[Problem]:
        for name, is_right, expected in (rule for some in rules for rule in some):
            value = config
            for part in name.split("."):
                value = getattr(value, part)
            if value is not None and not is_right(value):
                message = f"{name}: expected {expected}, got {catalogue.show(value)}"
                yield Problem(message, f"dgpo help {name}")

    return check


# Settings that do not go together.


def _training(config: TrainConfig) -> Iterator[Problem]:
    rollout, optim = config.rollout, config.optim
    if rollout.group_size < 2:
        message = f"rollout.group_size: {rollout.group_size} has no group to compare with"
        yield Problem(message, "advantages are relative to a prompt's other rollouts: rollout.group_size=8")
    if rollout.temperature <= 0:
        message = f"rollout.temperature: expected more than 0 in training, got {rollout.temperature}"
        yield Problem(message, "greedy rollouts of a prompt are all the same: rollout.temperature=1")
    if optim.minibatches > rollout.prompts_per_step:
        message = (
            f"optim.minibatches: {optim.minibatches} is more than rollout.prompts_per_step={rollout.prompts_per_step}"
        )
        yield Problem(message, "a step's prompts are split among its minibatches: use fewer")
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        message = f"optim.betas: expected two numbers from 0 to below 1, got {catalogue.show(optim.betas)}"
        yield Problem(message, "optim.betas=[0.9,0.999]")
    if config.model.dtype is not Dtype.float32 and not config.model.lora.rank:
        message = f"model.dtype: weights that are trained stay in float32, got {config.model.dtype.value}"
        hint = "bfloat16 weights lose most small updates: leave model.dtype out, or train adapters: model.lora.rank=16"
        yield Problem(message, hint)
    buffer = config.algo.overlong.buffer_tokens
    if config.algo.overlong.enabled and buffer is not None and buffer > rollout.max_completion_tokens:
        limit = rollout.max_completion_tokens
        message = f"algo.overlong.buffer_tokens: {buffer} is more than rollout.max_completion_tokens={limit}"
        yield Problem(message, "null takes 20% of the limit")
    wrong = [name for name in config.checkpoint.signals if name not in SIGNALS]
    if wrong:
        close = catalogue.nearest(wrong[0], SIGNALS)
        message = f"checkpoint.signals: expected names of {', '.join(SIGNALS)}, got {catalogue.show(wrong)}"
        yield Problem(message, f"did you mean {close}?" if close else "checkpoint.signals=[SIGTERM,SIGINT,SIGUSR1]")
    if config.overwrite and config.resume:
        yield Problem("overwrite: true deletes the run that resume= continues", "leave one of them out")


def _gating(config: TrainConfig | RolloutConfig) -> Iterator[Problem]:
    clip = config.gating.clip
    if clip is not None and not (len(clip) == 2 and 0 <= clip[0] <= 1 <= clip[1] and clip[0] < clip[1]):
        message = f"gating.clip: expected [w_min,w_max] with 0 <= w_min <= 1 <= w_max, got {catalogue.show(clip)}"
        yield Problem(message, "the weights' mean is 1, so the range has to hold it: gating.clip=[0.5,2]")


def _needed_reference(config: TrainConfig) -> Iterator[Problem]:
    if config.reference.name != "none":
        return
    hint = "reference=initial is the policy before training; gating=uniform and algo.kl_coef=0 need none"
    gating = config.gating
    if gating.signal in NEEDS_REFERENCE:
        yield Problem(f"gating.signal={gating.signal.value}: measured from a reference, but reference=none", hint)
    if gating.noise_gate:
        yield Problem("gating.noise_gate=true: measures the distance from a reference, but reference=none", hint)
    if config.algo.kl_coef > 0:
        yield Problem(f"algo.kl_coef={config.algo.kl_coef}: a penalty to a reference, but reference=none", hint)
    if config.reference.refresh_every > 0:
        yield Problem(f"reference.refresh_every={config.reference.refresh_every}: there is none to refresh", hint)


def _distinct_reference(config: RolloutConfig) -> Iterator[Problem]:
    if config.reference.name == "initial":
        message = "reference=initial: the model that is sampled is itself the initial policy here"
        yield Problem(message, "reference.path=FOLDER, or a model option: reference=tiny")


def _stored_rollouts(config: RolloutConfig) -> Iterator[Problem]:
    path = config.rollouts
    if path is None:
        if config.vocabulary_size is not None:
            yield Problem("vocabulary_size: the model says it; only a stored file may not", "rollouts=FILE")
        return
    if config.prompt is not None:
        yield Problem("rollouts= and prompt=: one is read, the other sampled", "leave one of them out")
    if config.dry_run:
        yield Problem(
            "rollouts= and dry_run=true: no model is loaded, so there is nothing to plan", "leave out dry_run"
        )
    if Path(path).is_dir():
        inside = sorted(file for file in Path(path).glob("**/*.jsonl") if "rollouts" in (file.stem, file.parent.name))
        yield Problem(
            f"rollouts: expected a file, got the folder '{path}'",
            override("rollouts", inside[-1]) if inside else "a rollouts.jsonl, or a step of a run's rollouts/",
        )
    elif not Path(path).is_file():
        yield Problem(f"rollouts: no file '{path}'", "a rollouts.jsonl, or a step of a run's rollouts/")


def benchmark_hint() -> str:
    """What to type to choose one."""
    names = [name for name in catalogue.options("benchmark") if name != "none"]
    return f"benchmark=NAME: {', '.join(names)}"


def _evaluation(config: EvalConfig | TrainConfig) -> Iterator[Problem]:
    benchmark = config.benchmark
    if isinstance(config, EvalConfig) and benchmark.name is None:
        yield Problem("benchmark: none is chosen", benchmark_hint())
    k = benchmark.k
    if isinstance(config, TrainConfig):
        if config.eval.k is not None or benchmark.name is None:
            return  # training reports what eval.k allows
    elif benchmark.completions:
        return  # k is what the file holds
    asked = benchmark.pass_at or []
    too_large = [value for value in asked if value > k]
    if too_large:
        message = f"benchmark.pass_at: {catalogue.show(too_large)} is more than benchmark.k={k} samples a problem"
        yield Problem(message, f"benchmark.k={max(too_large)}, or benchmark.pass_at=[{k}]")
    if any(value < 1 for value in asked):
        shown = catalogue.show(asked)
        yield Problem(f"benchmark.pass_at: expected numbers of at least 1, got {shown}", "benchmark.pass_at=[1]")


def _engine(config: Any) -> Iterator[Problem]:
    engine, known = config.engine, catalogue.options("engine")
    if engine.name not in known:
        close = catalogue.nearest(engine.name, known)
        hint = f"did you mean engine={close}?" if close else " | ".join(known)
        yield Problem(f"engine.name: there is no engine '{engine.name}'", hint)
    elif engine.name == "openai" and not isinstance(config, EvalConfig):
        message = (
            "engine=openai: only dgpo eval takes it; training and rollouts need token ids and weights of their own"
        )
        yield Problem(message, "engine=transformers")
    elif engine.name == "openai" and not config.benchmark.completions:
        yield from _server(engine)


def _server(engine: EngineConfig) -> Iterator[Problem]:
    example = "engine.url=http://127.0.0.1:8000/v1"
    if not engine.url:
        yield Problem("engine.url: engine=openai needs the address of a server", example)
        return
    try:
        url = urlsplit(engine.url)
        _ = url.port  # raises where it is no number
    except ValueError:
        url = urlsplit("")
    if url.username or url.password:  # not shown: it may be a secret
        yield Problem("engine.url: expected an address without credentials", "engine.api_key_env=NAME_OF_A_VARIABLE")
    elif url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        yield Problem(f"engine.url: expected http://HOST:PORT/v1, got '{engine.url}'", example)
    elif url.path.rstrip("/").endswith("/completions"):
        base = engine.url.partition("/chat/completions")[0].partition("/completions")[0]
        yield Problem(f"engine.url: expected the API's base address, got '{engine.url}'", f"engine.url={base}")
    if engine.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", engine.api_key_env):
        message = "engine.api_key_env: expected the name of an environment variable, not the key itself"
        yield Problem(message, "export API_KEY=..., then engine.api_key_env=API_KEY")


def _compared(config: CompareConfig) -> Iterator[Problem]:
    if not config.runs:
        yield Problem("runs: no folder is given", "dgpo compare runs=[outputs/a,outputs/b]")
    for run in config.runs:
        if not Path(run).is_dir():
            yield Problem(f"runs: no folder '{run}'", "folders of runs, sweeps or evaluations, relative to this one")


# Files and folders. Hub ids cannot be checked without a network: only what is plainly local is.


def _models(config: Any) -> Iterator[Problem]:
    needs_none = isinstance(config, EvalConfig) and (config.benchmark.completions or config.engine.name == "openai")
    needs_none = needs_none or (isinstance(config, RolloutConfig) and config.rollouts is not None)
    if not needs_none:
        yield from _model("model", config.model.path)
        yield from _precision(config)
    if hasattr(config, "reference") and config.reference.name == "path":
        yield from _model("reference", config.reference.path)
    yield from _template("model", config.model.template)


def _precision(config: Any) -> Iterator[Problem]:
    if config.model.dtype is Dtype.bfloat16 and config.strategy.compute_dtype is ComputeDtype.float32:
        message = "strategy.compute_dtype=float32: weights in bfloat16 compute in bfloat16 (model.dtype=bfloat16)"
        yield Problem(message, "model.dtype=float32 holds the same values in float32; or leave strategy.compute_dtype")


def _model(group: str, path: str | None) -> Iterator[Problem]:
    name = f"{group}.path"
    if not path:
        yield Problem(f"{name}: {group}=path needs a path", f"{name}=HUB_ID or a folder")
    elif path.startswith("bundled:"):
        if path not in BUNDLED["model"]:
            yield Problem(f"{name}: nothing bundled is called '{path}'", "bundled:tiny is")
    elif Path(path).is_file():
        yield Problem(f"{name}: expected a model's folder, got the file '{path}'", "the folder that holds config.json")
    elif Path(path).is_dir():
        if not any((Path(path) / file).is_file() for file in ("config.json", "adapter_config.json")):
            yield Problem(f"{name}: no model in folder '{path}': it holds no config.json", "a run's folder works too")
        elif holds_adapter(path):
            yield from adapter_folder(name, path)
    elif not _is_hub_id(path):
        options = [option for option in catalogue.options("model") if option != "path"]
        close = catalogue.nearest(path, options)
        hint = f"did you mean {group}={close}?" if close else "a hub id is written OWNER/NAME"
        yield Problem(f"{name}: no folder '{path}'", hint)


def _is_hub_id(path: str) -> bool:
    """OWNER/NAME, where OWNER is no folder here: then it is a folder that was mistyped."""
    owner, slash, _ = path.partition("/")
    return bool(slash and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not Path(owner).is_dir())


def _template(group: str, template: str | None) -> Iterator[Problem]:
    if template is None or template in TEMPLATES or Path(template).is_file():
        return
    close = catalogue.nearest(template, TEMPLATES)
    hint = (
        f"did you mean {group}.template={close}?" if close else f"{' | '.join(TEMPLATES)}, or a file with {{problem}}"
    )
    yield Problem(f"{group}.template: no template or file '{template}'", hint)


def _data(config: TrainConfig | RolloutConfig) -> Iterator[Problem]:
    if isinstance(config, RolloutConfig) and (config.prompt is not None or config.rollouts is not None):
        return
    yield from _rows(config.data, "data")


def _benchmark_rows(config: TrainConfig | EvalConfig) -> Iterator[Problem]:
    benchmark = config.benchmark
    if benchmark.path:
        yield from _rows(benchmark, "benchmark")
    yield from _template("benchmark", benchmark.template)
    if benchmark.completions and not Path(benchmark.completions).is_file():
        message = f"benchmark.completions: no file '{benchmark.completions}'"
        yield Problem(message, "a JSONL file with the field completion, relative to this folder")


def _rows(source: DataConfig | BenchmarkConfig, group: str) -> Iterator[Problem]:
    name, path = f"{group}.path", source.path
    if not path:
        yield Problem(f"{name}: {group}=file needs a file", f"{name}=FILE ({', '.join(DATA_ENDINGS)}) or a hub id")
    elif path.startswith("bundled:"):
        if path not in BUNDLED["data"]:
            yield Problem(f"{name}: nothing bundled is called '{path}'", "bundled:digit_chain is")
    elif Path(path).is_file():
        if Path(path).suffix.lower() not in DATA_ENDINGS:
            yield Problem(f"{name}: cannot read '{path}' by its ending", f"one of {', '.join(DATA_ENDINGS)}")
    elif Path(path).is_dir():
        yield Problem(f"{name}: expected a file, got the folder '{path}'", f"a file: {', '.join(DATA_ENDINGS)}")
    elif path.endswith(DATA_ENDINGS) or not _is_hub_id(path):
        close = catalogue.nearest(path, catalogue.options(group))
        hint = (
            f"did you mean {group}={close}?" if close else "paths are relative to this folder; a hub id is OWNER/NAME"
        )
        yield Problem(f"{name}: no file '{path}'", hint)
    if group == "data":
        yield from _template(group, source.template)


def _rewards(config: Any) -> Iterator[Problem]:
    yield from _reward(config.reward, "reward.name")
    if not hasattr(config, "benchmark"):
        return
    given = config.benchmark.reward
    if given not in catalogue.options("reward"):
        yield Problem(f"benchmark.reward: there is no grader '{given}'", _reward_hint("benchmark.reward", given))
    elif isinstance(config, TrainConfig) and given == "function" and config.reward.name != given:
        yield from _function(config.reward.path, "benchmark.reward=function")


def _reward(reward: RewardConfig, key: str) -> Iterator[Problem]:
    if reward.name not in catalogue.options("reward"):
        yield Problem(f"{key}: there is no grader '{reward.name}'", _reward_hint(key, reward.name))
        return
    if reward.name == "function":
        yield from _function(reward.path, "reward=function")
    if reward.timeout_score is not None and reward.name != "function":
        message = f"reward.timeout_score: reward={reward.name} gives no scores; a grading that is late is wrong there"
        yield Problem(message, "algo.reward_wrong is what a wrong answer earns")
    elif reward.timeout_score is not None and not math.isfinite(reward.timeout_score):
        message = f"reward.timeout_score: expected a finite number, got {reward.timeout_score}"
        yield Problem(message, "null takes the least that the function has given so far")


def _function(path: str | None, needed_by: str) -> Iterator[Problem]:
    file, colon, function = (path or "").rpartition(":")
    example = "reward.path=my_reward.py:score"
    if not path:
        yield Problem(f"reward.path: {needed_by} needs a file and a function", example)
    elif not colon or not function.isidentifier():
        yield Problem(f"reward.path: expected FILE.py:FUNCTION, got '{path}'", example)
    elif not Path(file).is_file():
        yield Problem(f"reward.path: no file '{file}'", "paths are relative to this folder")


def _reward_hint(key: str, given: str) -> str:
    known = catalogue.options("reward")
    close = catalogue.nearest(given, known)
    return f"did you mean {key}={close}?" if close else " | ".join(known)


CHECKS: dict[str, list[Callable[[Any], Iterator[Problem]]]] = {
    "train": [
        _ranges(TRAIN_RULES, DATA_RULES, BENCHMARK_RULES, COMMON_RULES),
        *(
            _training,
            trained_adapter,
            several_processes,
            _gating,
            _needed_reference,
            _evaluation,
            _engine,
            _models,
            _data,
            _benchmark_rows,
            _rewards,
            wandb_names,
        ),
    ],
    "eval": [
        _ranges(BENCHMARK_RULES, COMMON_RULES),
        untrained_adapter,
        one_process,
        _evaluation,
        _engine,
        _models,
        _benchmark_rows,
        _rewards,
    ],
    "rollout": [
        _ranges(ROLLOUT_RULES, DATA_RULES, COMMON_RULES),
        *(
            untrained_adapter,
            one_process,
            _gating,
            _stored_rollouts,
            _distinct_reference,
            _engine,
            _models,
            _data,
            _rewards,
        ),
    ],
    "compare": [_ranges(COMPARE_RULES), _compared],
}
