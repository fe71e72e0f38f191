"""`dgpo train`: from a configuration to a trainer to a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.parts import (
    Policy,
    benchmark_prompts,
    load_data_prompts,
    load_grader,
    load_policy,
    load_reference,
    load_trainee,
    prepare_device,
)
from dgpo_cli.config.checks import warnings as config_warnings
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import Schedule
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.errors import Interrupted
from dgpo_cli.evaluation.benchmark import load_benchmark
from dgpo_cli.evaluation.evaluate import evaluate
from dgpo_cli.files import read_lines
from dgpo_cli.models import LanguageModel, architecture_summary
from dgpo_cli.reporting.console import TrainingView
from dgpo_cli.training.checkpoint import Checkpoints, RunState, load_optimizer, load_state
from dgpo_cli.training.collect import Collector
from dgpo_cli.training.lock import locked
from dgpo_cli.training.loop import Trainer
from dgpo_cli.training.memory import check_memory
from dgpo_cli.training.optimizer import Optimizer, learning_rate
from dgpo_cli.training.out_of_memory import is_out_of_memory, out_of_memory
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.showcase import run_name
from dgpo_cli.training.signals import SignalGuard, StopRequested
from dgpo_cli.training.space import check_space, checkpoint_bytes, predicted_need
from dgpo_cli.training.tracker import Tracker
from dgpo_cli.training.update import UnfinishedStep, Updater
from dgpo_cli.types import Grader, Prompt, Sampling


def run(config: TrainConfig, folder: Path) -> None:
    """Train; the last line on stdout is the run's folder.

    Raises:
        DgpoError: nothing was started (exit 2), the run failed (1), or a signal ended it after it was saved (130, 143).
    """
    signals = SignalGuard(config.checkpoint.grace_seconds, config.checkpoint.signals)
    grader = None
    with signals.listening(), locked(folder):
        try:
            grader = load_grader(config.reward)
            _train(config, folder, grader, signals)
        except StopRequested:  # before the first step: nothing to save
            raise _interrupted(signals, folder) from None
        finally:
            if grader is not None:
                grader.close()
    print(folder)


def _train(config: TrainConfig, folder: Path, grader: Grader, signals: SignalGuard) -> None:
    trainer = _build(config, folder, grader, signals)
    status, code = "failed", 1
    try:
        with trainer.view:
            trainer.run()
        trainer.save()
        status, code = "done", 0
        _say_goodbye(trainer)
    except (StopRequested, UnfinishedStep) as stop:
        status, code = "interrupted", signals.exit_code
        _save_interrupted(trainer, finished=isinstance(stop, StopRequested))
        raise _interrupted(signals, folder, trainer.state.step) from None
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(error) from error
        raise
    finally:
        signals.hold()
        trainer.tracker.close(code)
        trainer.folder.finish(status, last_step=trainer.state.step)


def _build(config: TrainConfig, folder: Path, grader: Grader, signals: SignalGuard) -> Trainer:
    """Everything that can be refused is refused here, before the run's folder holds anything."""
    device = prepare_device(config.strategy, config.model)
    run_folder = RunFolder(folder)
    checkpoints = Checkpoints(folder, keep=config.checkpoint.keep, merge_adapter=config.model.lora.merge)
    checkpoint = _checkpoint_to_resume(config, checkpoints)
    policy = load_trainee(config.model, device, checkpoint, seed=config.seed)
    torch.manual_seed(derive_seed("torch", config.seed))
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    reference = _reference(config, policy.model, algorithm, checkpoint, device)
    prompts = load_data_prompts(
        config.data,
        config.model,
        policy,
        grader,
        seed=config.seed,
        max_completion_tokens=config.rollout.max_completion_tokens,
    )
    engine = TransformersEngine(policy.model, stop_ids=policy.stop_ids, batch_size=config.engine.batch_size)
    evaluation = _evaluation(config, policy, engine, run_folder)
    optimizer = Optimizer(policy.model.model, config.optim)
    state = RunState()
    if checkpoint is not None:
        state = load_state(checkpoint)
        load_optimizer(checkpoint, optimizer, policy.model.device)
        _move_the_end(state, config)
    state.planned_steps = config.steps
    if device == "cpu":
        check_memory(policy.model, positions=_largest_microbatch(config, prompts))
    warnings = config_warnings(config, "train") + _disk_warnings(config, folder, state, policy.model, reference)
    if config.overwrite and config.resume is None:
        run_folder.clear()
    checkpoints.rewind(checkpoint)
    tracker_id = state.tracker_id or (run_folder.tracker_id() if config.resume else None)
    run_folder.start(config, _facts(config, policy, reference is not None, len(prompts)))
    run_folder.rewind(state.step)
    tracked = _plain(config) | {"manifest": run_folder.manifest}
    tracker = Tracker(config.logger, folder, tracked, run_id=tracker_id, name=run_name(config))
    state.tracker_id = tracker.run_id or state.tracker_id
    run_folder.note(wandb_run=state.tracker_id)
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    view = TrainingView(config.steps, state.step + 1, _title(config), read_lines(run_folder.metrics))
    updater = Updater(
        policy.model,
        reference,
        algorithm,
        optimizer,
        config.optim,
        temperature=config.rollout.temperature,
        say=view.note,
    )
    updater.budget.continue_with(state.tokens_per_microbatch)
    return Trainer(
        config=config,
        folder=run_folder,
        checkpoints=checkpoints,
        state=state,
        model=policy.model,
        reference=reference,
        algorithm=algorithm,
        collector=Collector(
            prompts,
            engine,
            grader,
            algorithm,
            _sampling(config),
            seed=config.seed,
            group_size=config.rollout.group_size,
            prompts_per_step=config.rollout.prompts_per_step,
        ),
        optimizer=optimizer,
        updater=updater,
        evaluate=evaluation,
        tracker=tracker,
        view=view,
        signals=signals,
    )


def _largest_microbatch(config: TrainConfig, prompts: list[Prompt]) -> int:
    """Positions of a micro-batch of completions that are as long as they may be."""
    rollout = config.rollout
    longest = max(len(prompt.token_ids) for prompt in prompts) + rollout.max_completion_tokens
    samples = rollout.prompts_per_step * rollout.group_size
    return longest * min(samples, max(1, config.optim.tokens_per_microbatch // longest))


def _sampling(config: TrainConfig) -> Sampling:
    rollout = config.rollout
    return Sampling(rollout.temperature, rollout.top_p, rollout.max_completion_tokens)


def _checkpoint_to_resume(config: TrainConfig, checkpoints: Checkpoints) -> Path | None:
    if config.resume is None:
        return None
    checkpoint, warnings = checkpoints.newest_intact()
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    if checkpoint is None:
        print(f"{config.resume} holds no complete checkpoint: starting at step 1", file=sys.stderr)
    return checkpoint


def _reference(
    config: TrainConfig, policy: LanguageModel, algorithm: Algorithm, checkpoint: Path | None, device: str
) -> LanguageModel | None:
    """A reference where distance, KL or the noise gate needs one, and only there."""
    if not algorithm.needs_reference:
        return None
    stored = checkpoint / "state" / "reference" if checkpoint is not None else None
    if policy.adapter is not None and config.reference.name == "initial":
        return policy.renewable_reference(stored) if config.reference.refresh_every else policy.frozen_copy()
    if stored is not None and config.reference.refresh_every:
        renewed = load_policy(config.model, device, path=str(stored)).model
        renewed.model.requires_grad_(False)
        return renewed
    if checkpoint is None:
        return load_initial_reference(config, policy, algorithm, device)
    return load_reference(config.reference, config.model, policy, device)


def load_initial_reference(
    config: TrainConfig, policy: LanguageModel, algorithm: Algorithm, device: str
) -> LanguageModel | None:
    """The reference of a run's first step."""
    if not algorithm.needs_reference:
        return None
    if config.reference.name == "initial":
        return policy.frozen_copy()
    return load_reference(config.reference, config.model, policy, device)


def _evaluation(
    config: TrainConfig, policy: Policy, engine: TransformersEngine, folder: RunFolder
) -> Callable[[int], dict[str, Any] | None]:
    """Evaluation after a step, by the code of `dgpo eval`; the benchmark's own grader, whatever the reward is."""
    benchmark = config.benchmark
    if benchmark.name is None:
        return lambda step: None
    benchmark = replace(benchmark, k=config.eval.k or benchmark.k, limit=config.eval.limit or benchmark.limit)
    reward = replace(config.reward, name=benchmark.reward)
    loaded = load_benchmark(benchmark, grader=reward.name, limit=benchmark.limit)
    prompts = benchmark_prompts(loaded, benchmark, config.model, policy)
    name = str(benchmark.name)

    def after(step: int) -> dict[str, Any]:
        with closing(load_grader(reward)) as grader:
            result = evaluate(
                engine,
                grader,
                prompts,
                benchmark=name,
                k=benchmark.k,
                sampling=Sampling(benchmark.temperature, benchmark.top_p, benchmark.max_tokens),
                seed=config.seed,
                batch_size=config.engine.batch_size,
                pass_at=None if benchmark.pass_at is None else [k for k in benchmark.pass_at if k <= benchmark.k],
                folder=folder.evaluation_folder(step),
                model=config.model.name,
                manifest={"step": step},
            )
        return {"step": step, **folder.evaluation_row(result.as_record())}

    return after


def _disk_warnings(
    config: TrainConfig, folder: Path, state: RunState, model: LanguageModel, reference: LanguageModel | None
) -> list[str]:
    """Whether the disk holds what the run will write. Raises ConfigError where not even a checkpoint fits."""
    if state.step >= config.steps:
        return []  # it was all written
    renewed = reference if config.reference.refresh_every else None
    checkpoint = checkpoint_bytes(model, renewed, merged=config.model.lora.merge)
    need = predicted_need(config, checkpoint, measured=reference is not None)
    warning = check_space(folder, need, overwrite=config.overwrite and config.resume is None)
    return [] if warning is None else [warning]


def _move_the_end(state: RunState, config: TrainConfig) -> None:
    """Resumed with other `steps`: a schedule that decays does so from where it stands."""
    before, settings = state.planned_steps, config.optim
    if before is None or before == config.steps or settings.schedule is Schedule.constant:
        return
    if state.step >= settings.warmup_steps:
        state.decay_from = (state.step, learning_rate(state.step, before, settings, state.decay_from))
    print(
        f"warning: steps={config.steps} in place of {before}: the {settings.schedule.name} schedule decays from where "
        f"it stands after step {state.step} to its end at step {config.steps}",
        file=sys.stderr,
    )


def _facts(config: TrainConfig, policy: Policy, has_reference: bool, prompts: int) -> dict[str, Any]:
    """What run.json says of the run beside its configuration."""
    return {
        "model": {"path": config.model.path, **architecture_summary(policy.model)},
        "reference": config.reference.name if has_reference else None,
        "prompts": prompts,
        "sampling": {
            **asdict(_sampling(config)),
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_ids": sorted(policy.stop_ids),
        },
    }


def _plain(config: TrainConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _title(config: TrainConfig) -> str:
    rollout = config.rollout
    return (
        f"{config.algo.name} with gating {config.gating.name}: {config.model.name} on {config.data.name}, "
        f"{config.steps} steps of {rollout.prompts_per_step} prompts x {rollout.group_size}"
    )


def _save_interrupted(trainer: Trainer, *, finished: bool) -> None:
    """After a signal: the state after the last finished step is saved, or the last checkpoint stands."""
    if finished and trainer.state.step:
        trainer.save()
    newest, _ = trainer.checkpoints.newest_intact()
    trainer.state.step = load_state(newest).step if newest is not None else 0
    trainer.folder.rewind(trainer.state.step)


def _interrupted(signals: SignalGuard, folder: Path, step: int = 0) -> Interrupted:
    saved = f"saved after step {step}" if step else "no step was finished"
    return Interrupted(
        f"interrupted: {saved}",
        f"dgpo train {shlex.quote(f'resume={folder}')} continues it",
        exit_code=signals.exit_code,
    )


def _say_goodbye(trainer: Trainer) -> None:
    """Accuracy before and after with intervals, the folder, the next command."""
    rows = trainer.folder.evaluated_steps()
    folder = trainer.folder.folder
    if rows:
        first, last = rows[min(rows)], rows[max(rows)]
        print(f"{first['benchmark']}: {_accuracy(first)} before, {_accuracy(last)} after training", file=sys.stderr)
    print(f"run: {folder}", file=sys.stderr)
    model = shlex.quote(f"model.path={folder}")
    before = trainer.config.model
    reference = shlex.quote(f"reference.path={before.path}" if before.name == "path" else f"reference={before.name}")
    benchmark = "" if trainer.config.benchmark.name else " benchmark=NAME"
    print(f"next: dgpo eval {model}{benchmark}   or: dgpo rollout {model} {reference}", file=sys.stderr)


def _accuracy(row: dict[str, Any]) -> str:
    average = row["avg_at_k"]
    low, high = average["ci95"] or (None, None)
    interval = f" [{low:.1%}, {high:.1%}]" if low is not None else ""
    return f"{average['value']:.1%}{interval}"
