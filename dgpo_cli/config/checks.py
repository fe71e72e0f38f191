"""Which checks a command is asked: `validate` returns everything that is wrong, `warnings` what is merely risky.

Each check is a small function from a typed configuration to problems, each with what to do; `CHECKS` says which command
is asked which. Settings that do not go together are checked here. What concerns single values, files, an engine, a
reward, processes, adapters or W&B stands in a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dgpo_cli.command_lines import override
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.chain_checks import chain_note
from dgpo_cli.config.commands import CompareConfig, EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.engine_checks import known_engine
from dgpo_cli.config.file_checks import benchmark_files, data, models
from dgpo_cli.config.gating_needs import follows_reference, gates_noise, needed_from_reference, shapes_credit
from dgpo_cli.config.groups import Dtype, Form, GatingConfig, Normalizer
from dgpo_cli.config.lora_checks import trained_adapter, untrained_adapter
from dgpo_cli.config.oracle_checks import oracle, oracle_note
from dgpo_cli.config.quantization_checks import optimizer_states, quantized_evaluation, quantized_training
from dgpo_cli.config.ranges import (
    BENCHMARK_RULES,
    COMMON_RULES,
    COMPARE_RULES,
    DATA_RULES,
    ROLLOUT_RULES,
    SWAP_RULES,
    SWEEP_RULES,
    TRAIN_RULES,
    ranges,
)
from dgpo_cli.config.reward_checks import rewards
from dgpo_cli.config.rollout_files import EXPORTED, is_of_others, is_run_with_rollouts
from dgpo_cli.config.strategy_checks import one_process, several_processes
from dgpo_cli.config.study_checks import distinct_reference, studies
from dgpo_cli.config.wandb_checks import tensorboard, wandb_names
from dgpo_cli.core.signals import SIGNALS
from dgpo_cli.errors import Problem

HUB_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
UNIX_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")


def validate(config: Any, command: str) -> list[Problem]:
    """Every problem of a typed configuration, before anything starts."""
    views = config.for_each_benchmark() if isinstance(config, TrainConfig) else [config]
    return list(dict.fromkeys(problem for view in views for check in CHECKS[command] for problem in check(view)))


def warnings(config: Any, command: str) -> list[str]:
    """What the command should say at its start."""
    found = [] if command == "compare" else chain_note(config)  # it draws nothing
    found += oracle_note(config.gating) if command == "train" else []
    if command == "train" and config.rollout.top_p != 1:
        found.append(
            f"rollout.top_p={config.rollout.top_p}: tokens are drawn from a cut distribution, so the importance ratio "
            "and the policy gradient are biased; 1.0 is unbiased"
        )
    if command == "train" and config.rollout.lag and config.engine.correction.name == "none":
        found.append(
            "engine.correction=none with rollout.lag=1: rollouts of earlier weights are trained on as if the weights "
            "that train had drawn them; engine.correction=token makes up for the difference"
        )
    if command == "train" and not shapes_credit(config.gating) and config.gating.control.name != "none":
        found.append(
            f"gating.control={config.gating.control.name}: uniform credit has no weights to move, so it changes nothing"
        )
    if command == "train" and config.gating.normalizer is Normalizer.window and config.gating.clip is None:
        found.append(
            "gating.normalizer=window without gating.clip: the weights have a heavy tail, and one token can hold most "
            "of a rollout's credit: watch credit/max, or bound them (gating.clip=[0.2,5])"
        )
    if command == "train" and config.model.lora.rank and needed_from_reference(config.gating):
        found.append(
            f"model.lora.rank={config.model.lora.rank} with gating={config.gating.name}: under LoRA, credit from the "
            "distance to a reference may degenerate to uniform, or to a few positions that have nothing to do with the "
            "task (arXiv 2606.00257): watch credit/ess and credit/max, and compare with gating.control=permute"
        )
    return found


def _sampling(config: TrainConfig) -> Iterator[Problem]:
    rollout = config.rollout
    if rollout.group_size < 2:
        message = f"rollout.group_size: {rollout.group_size} has no group to compare with"
        yield Problem(message, "advantages are relative to a prompt's other rollouts: rollout.group_size=8")
    if rollout.temperature <= 0:
        message = f"rollout.temperature: expected more than 0 in training, got {rollout.temperature}"
        yield Problem(message, "greedy rollouts of a prompt are all the same: rollout.temperature=1")


def _updates(config: TrainConfig) -> Iterator[Problem]:
    optim, prompts = config.optim, config.rollout.prompts_per_step
    if optim.minibatches > prompts:
        message = f"optim.minibatches: {optim.minibatches} is more than rollout.prompts_per_step={prompts}"
        yield Problem(message, "a step's prompts are split among its minibatches: use fewer")
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        message = f"optim.betas: expected two numbers from 0 to below 1, got {catalogue.show(optim.betas)}"
        yield Problem(message, "optim.betas=[0.9,0.999]")
    if config.model.dtype is not Dtype.float32 and not config.model.lora.rank:
        message = f"model.dtype: weights that are trained stay in float32, got {config.model.dtype.value}"
        hint = "bfloat16 weights lose most small updates: leave model.dtype out, or train adapters: model.lora.rank=16"
        yield Problem(message, hint)


def _overlong(config: TrainConfig) -> Iterator[Problem]:
    overlong, limit = config.algo.overlong, config.rollout.max_completion_tokens
    if overlong.enabled and overlong.buffer_tokens is not None and overlong.buffer_tokens > limit:
        message = (
            f"algo.overlong.buffer_tokens: {overlong.buffer_tokens} is more than rollout.max_completion_tokens={limit}"
        )
        yield Problem(message, "null takes 20% of the limit")


def _stopping(config: TrainConfig) -> Iterator[Problem]:
    wrong = [name for name in config.checkpoint.signals if name not in UNIX_SIGNALS]
    if wrong:
        close = catalogue.nearest(wrong[0], UNIX_SIGNALS)
        message = f"checkpoint.signals: expected names of {', '.join(UNIX_SIGNALS)}, got {catalogue.show(wrong)}"
        yield Problem(message, f"did you mean {close}?" if close else "checkpoint.signals=[SIGTERM,SIGINT,SIGUSR1]")
    if config.overwrite and config.resume:
        yield Problem("overwrite: true deletes the run that resume= continues", "leave one of them out")


def _repository(config: TrainConfig) -> Iterator[Problem]:
    name = config.push_to_hub
    if name is not None and not re.fullmatch(HUB_NAME, name):
        yield Problem(f"push_to_hub: expected USER/NAME, got '{name}'", "push_to_hub=me/my-model")


def _gating(config: TrainConfig | RolloutConfig) -> Iterator[Problem]:
    clip = config.gating.clip
    if clip is not None and not (len(clip) == 2 and 0 <= clip[0] <= 1 <= clip[1] and clip[0] < clip[1]):
        message = f"gating.clip: expected [w_min,w_max] with 0 <= w_min <= 1 <= w_max, got {catalogue.show(clip)}"
        yield Problem(message, "the weights' mean is 1, so the range has to hold it: gating.clip=[0.5,2]")
    yield from _gating_form(config.gating)


def _gating_form(gating: GatingConfig) -> Iterator[Problem]:
    band, name = gating.band, gating.signal.value
    if band is not None and not (len(band) == 2 and band[0] <= band[1]):
        yield Problem(
            f"gating.band: expected [low,high] with low <= high, got {catalogue.show(band)}", "gating.band=[0.1,3]"
        )
    if band is not None and gating.top_fraction is not None:
        yield Problem("gating.band and gating.top_fraction: each chooses tokens by itself", "leave one of them out")
    if gating.form is Form.sigmoid and abs(gating.strength) > 2:
        message = f"gating.strength: expected -2 to 2 with form=sigmoid, got {gating.strength}"
        yield Problem(message, "beyond it weights would fall below 0")
    if gating.normalizer is Normalizer.saturate and name in SIGNALS and SIGNALS[name].signed:
        message = f"gating.normalizer=saturate: gating.signal={name} can be below 0, where it is not defined"
        yield Problem(message, "gating.normalizer=rank")


def _needed_reference(config: TrainConfig) -> Iterator[Problem]:
    if config.reference.name != "none":
        return
    hint = "reference=initial is the policy before training; gating=uniform and algo.kl_coef=0 need none"
    gating = config.gating
    if follows_reference(gating.signal):
        yield Problem(f"gating.signal={gating.signal.value}: measured from a reference, but reference=none", hint)
    if gates_noise(gating):
        yield Problem("gating.noise_gate=true: measures the distance from a reference, but reference=none", hint)
    if config.algo.kl_coef > 0:
        yield Problem(f"algo.kl_coef={config.algo.kl_coef}: a penalty to a reference, but reference=none", hint)
    if config.reference.refresh_every > 0:
        yield Problem(f"reference.refresh_every={config.reference.refresh_every}: there is none to refresh", hint)


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
    if is_run_with_rollouts(path):
        if not config.report or config.export is not None:
            message = f"rollouts: '{path}' is a run, of which report=true makes one page of all stored steps"
            yield Problem(message, "report=true, without export=; or a step of its rollouts/")
    elif Path(path).is_dir():
        inside = sorted(file for file in Path(path).glob("**/*.jsonl") if "rollouts" in (file.stem, file.parent.name))
        yield Problem(
            f"rollouts: expected a file, got the folder '{path}'",
            override("rollouts", inside[-1]) if inside else "a rollouts.jsonl, or a step of a run's rollouts/",
        )
    elif not Path(path).is_file():
        yield Problem(f"rollouts: no file '{path}'", "a rollouts.jsonl, or a step of a run's rollouts/")


def _export(config: RolloutConfig) -> Iterator[Problem]:
    if config.export is None:
        return
    path = Path(config.export)
    if path.suffix.lower() not in EXPORTED:
        yield Problem(f"export: cannot write '{config.export}' by its ending", f"one of {', '.join(EXPORTED)}")
    elif path.exists() and not config.overwrite:
        yield Problem(f"export: {config.export} exists already", "another name, or overwrite=true")
    reads_alone = config.rollouts is not None and not is_of_others(config.rollouts)
    if not reads_alone and config.reference.name == "none" and needed_from_reference(config.gating):
        message = (
            f"export: gating={config.gating.name} needs a reference, and reference=none: there would be no weights"
        )
        yield Problem(message, "reference=NAME or reference.path=FOLDER; or gating=uniform, gating=top_entropy")


def _graded_file(config: RolloutConfig) -> Iterator[Problem]:
    if config.grade is None:
        return
    if config.prompt is not None or config.rollouts is not None:
        yield Problem("grade= tries a reward, and prompt= and rollouts= do something else", "leave out all but one")
    if config.dry_run:
        yield Problem("grade= and dry_run=true: no model is loaded, so there is nothing to plan", "leave out dry_run")
    if not Path(config.grade).is_file():
        yield Problem(f"grade: no file '{config.grade}'", "a JSONL file with the field completion")


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


def _compared(config: CompareConfig) -> Iterator[Problem]:
    if not config.runs:
        yield Problem("runs: no folder is given", "dgpo compare runs=[outputs/a,outputs/b]")
    for run in config.runs:
        if not Path(run).is_dir():
            yield Problem(f"runs: no folder '{run}'", "folders of runs, sweeps or evaluations, relative to this one")


CHECKS: dict[str, list[Callable[[Any], Iterator[Problem]]]] = {
    "train": [
        ranges(TRAIN_RULES, DATA_RULES, BENCHMARK_RULES, COMMON_RULES, SWEEP_RULES),
        _sampling,
        _updates,
        _overlong,
        _stopping,
        _repository,
        trained_adapter,
        quantized_training,
        optimizer_states,
        several_processes,
        _gating,
        oracle,
        _needed_reference,
        _evaluation,
        known_engine,
        models,
        data,
        benchmark_files,
        rewards,
        wandb_names,
        tensorboard,
    ],
    "eval": [
        ranges(BENCHMARK_RULES, COMMON_RULES, SWAP_RULES, SWEEP_RULES),
        studies,
        untrained_adapter,
        quantized_evaluation,
        one_process,
        _evaluation,
        known_engine,
        models,
        benchmark_files,
        rewards,
    ],
    "rollout": [
        ranges(ROLLOUT_RULES, DATA_RULES, COMMON_RULES),
        untrained_adapter,
        quantized_evaluation,
        one_process,
        _gating,
        oracle,
        _stored_rollouts,
        _export,
        _graded_file,
        distinct_reference,
        known_engine,
        models,
        data,
        rewards,
    ],
    "compare": [ranges(COMPARE_RULES), _compared],
}
