"""From a configuration to a Trainer, in each process of a run.

The main process reads data, grades, evaluates and writes; the others have the models and lend a hand.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.parts import (
    benchmark_prompts,
    is_base_of,
    load_data_prompts,
    load_grader,
    load_policy,
    load_reference,
    load_trainee,
    prepare_device,
)
from dgpo_cli.config.attempts import begin
from dgpo_cli.config.checks import warnings as config_warnings
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.compose import node_of
from dgpo_cli.config.evaluation_reward import own_grader, reward_of_evaluation
from dgpo_cli.config.groups import FilterBy, LoggerMode, RewardConfig, Schedule
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.crew import Crew
from dgpo_cli.engines import make_engine
from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.benchmark import load_benchmark
from dgpo_cli.evaluation.evaluate import evaluate
from dgpo_cli.evaluation.manifest import reward_facts
from dgpo_cli.files import read_lines
from dgpo_cli.models.language_model import LanguageModel, Policy
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.saving import architecture_summary
from dgpo_cli.processes import Processes
from dgpo_cli.reporting.console import TrainingView
from dgpo_cli.rewards.function import FunctionGrader
from dgpo_cli.rewards.trial import require_right_or_wrong, try_grader
from dgpo_cli.terminal import say
from dgpo_cli.training.checkpoint import Checkpoints, RunState, load_state
from dgpo_cli.training.collect import Collected, Collector
from dgpo_cli.training.host_memory import Sharers, check_memory, sharers_of
from dgpo_cli.training.loop import Trainer
from dgpo_cli.training.optimizer import Optimizer, learning_rate
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.showcase import run_name
from dgpo_cli.training.space import check_space, checkpoint_bytes, predicted_need
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.tracker import Tracker
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Engine, Grader, Prompt, Sampling


@dataclass(frozen=True)
class MainOnly:
    """What the main process alone reads and writes; the others have one that does nothing."""

    collect: Callable[[int, int], Collected]
    evaluate: Callable[[int], dict[str, Any] | None]
    tracker: Tracker
    view: TrainingView


def build(
    config: TrainConfig,
    folder: Path,
    grader: Grader | None,
    guard: StopGuard,
    processes: Processes,
    held: ExitStack,
) -> Trainer:
    """Everything that can be refused is refused here, before the run's folder holds anything.

    grader: of the main process; None in the others.
    held: closes the engine at the end of the run, also if it never begins.
    """
    device = prepare_device(config.strategy, config.model, processes)
    placement = Placement(config.strategy, device, processes, config.model.dtype)
    run_folder = RunFolder(folder)
    checkpoints = Checkpoints(
        folder, keep=config.checkpoint.keep, merge_adapter=config.model.lora.merge, processes=processes
    )
    checkpoint = processes.from_main(_checkpoint_to_resume(config, checkpoints) if processes.main else None)
    state = _state_to_resume(config, checkpoint)
    policy = placement.policy(lambda device: load_trainee(config.model, device, checkpoint, seed=config.seed))
    torch.manual_seed(derive_seed("torch", config.seed))
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    reference = load_frozen(config, policy.model, algorithm, checkpoint, placement)
    crew = Crew(processes, signal_number=lambda: guard.received or 0, stop_agreed=guard.obey)
    engine = held.enter_context(closing(make_engine(config.engine, policy=policy, crew=crew)))
    optimizer = Optimizer(policy.model.model, config.optim, processes)
    if checkpoint is not None:
        optimizer.load(checkpoint / "state")
    _move_the_end(state, config, says=processes.main)
    state.planned_steps = config.steps
    together = sharers_of(processes, sharded=policy.model.shards is not None)
    if grader is not None:
        main_only = _main_only(
            config, run_folder, checkpoints, checkpoint, state, policy, reference, engine, processes, grader, together
        )
    else:
        main_only = _elsewhere(config, folder)
    processes.highest(0)  # no process goes on before the run has begun
    if not processes.main:
        begin(folder)
    updater = Updater(
        policy.model,
        reference,
        algorithm,
        optimizer,
        config.optim,
        temperature=config.rollout.temperature,
        say=main_only.view.note,
        processes=processes,
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
        collect=main_only.collect,
        optimizer=optimizer,
        updater=updater,
        evaluate=main_only.evaluate,
        tracker=main_only.tracker,
        view=main_only.view,
        guard=guard,
        engine=engine,
        crew=crew,
    )


def _main_only(
    config: TrainConfig,
    run_folder: RunFolder,
    checkpoints: Checkpoints,
    checkpoint: Path | None,
    state: RunState,
    policy: Policy,
    reference: LanguageModel | None,
    engine: Engine,
    processes: Processes,
    grader: Grader,
    sharers: Sharers,
) -> MainOnly:
    """Read the data, check the machine, open the run's folder."""
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    folder = run_folder.folder
    prompts = load_data_prompts(
        config.data,
        config.model,
        policy,
        grader,
        seed=config.seed,
        max_completion_tokens=config.rollout.max_completion_tokens,
    )
    if config.algo.dynamic_sampling.enabled and config.algo.dynamic_sampling.by is FilterBy.correct:
        by, otherwise = "algo.dynamic_sampling.by=correct", "algo.dynamic_sampling.by=spread"
        require_right_or_wrong(try_grader(grader, prompts[0]), config.reward, by, otherwise)
    if isinstance(grader, FunctionGrader) and state.scores_given is not None:
        grader.given = state.scores_given
    evaluation = _evaluation(config, policy, engine, run_folder)
    if policy.model.device.type == "cpu":
        tokens = state.tokens_per_microbatch or config.optim.tokens_per_microbatch
        _check_memory(config, prompts, policy.model, processes, tokens, sharers, resumed=checkpoint is not None)
    warnings = config_warnings(config, "train") + _disk_warnings(config, folder, state, policy.model, reference)
    if config.overwrite and config.resume is None:
        run_folder.clear()
    begin(folder)
    checkpoints.rewind(checkpoint)
    tracker_id = state.tracker_id or (run_folder.tracker_id() if config.resume else None)
    run_folder.start(config, _facts(config, policy, reference is not None, len(prompts), processes.size))
    run_folder.rewind(state.step)
    tracked = _plain(config) | {"manifest": run_folder.manifest}
    tracker = Tracker(config.logger, folder, tracked, run_id=tracker_id, name=run_name(config))
    state.tracker_id = tracker.run_id or state.tracker_id
    run_folder.note(wandb_run=state.tracker_id)
    for text in warnings:
        say(f"warning: {text}")
    collector = Collector(
        prompts,
        engine,
        grader,
        algorithm,
        _sampling(config),
        seed=config.seed,
        group_size=config.rollout.group_size,
        prompts_per_step=config.rollout.prompts_per_step,
    )
    view = TrainingView(config.steps, state.step + 1, _title(config, processes, state), read_lines(run_folder.metrics))
    return MainOnly(collector.collect, evaluation, tracker, view)


def _elsewhere(config: TrainConfig, folder: Path) -> MainOnly:
    def not_here(*_: int) -> NoReturn:
        raise AssertionError("the main process collects and evaluates")

    silent = replace(config.logger, mode=LoggerMode.disabled)
    tracker = Tracker(silent, folder, {}, run_id=None, name=folder.name)
    return MainOnly(not_here, not_here, tracker, TrainingView(config.steps, 1, ""))


def _check_memory(
    config: TrainConfig,
    prompts: list[Prompt],
    model: LanguageModel,
    processes: Processes,
    tokens: int,
    sharers: Sharers,
    *,
    resumed: bool,
) -> None:
    """With completions that are as long as they may be. tokens: of a micro-batch."""
    rollout = config.rollout
    longest = max(len(prompt.token_ids) for prompt in prompts) + rollout.max_completion_tokens
    samples = rollout.prompts_per_step * rollout.group_size // (config.optim.minibatches * processes.size)
    rows = max(1, min(samples, tokens // longest))
    check_memory(
        model,
        positions=rows * longest,
        micro_batches=1 if rows >= samples else 2,
        checkpointing=config.strategy.activation_checkpointing,
        moments_to_come=not resumed,
        sharers=sharers,
    )


def _sampling(config: TrainConfig) -> Sampling:
    rollout = config.rollout
    return Sampling(rollout.temperature, rollout.top_p, rollout.max_completion_tokens)


def _checkpoint_to_resume(config: TrainConfig, checkpoints: Checkpoints) -> Path | None:
    if config.resume is None:
        return None
    checkpoint, warnings = checkpoints.newest_intact()
    for text in warnings:
        say(f"warning: {text}")
    if checkpoint is None:
        say(f"{config.resume} holds no complete checkpoint: starting at step 1")
    return checkpoint


def _state_to_resume(config: TrainConfig, checkpoint: Path | None) -> RunState:
    """Where the run goes on. Raises ConfigError where it has gone further than it should."""
    state = RunState() if checkpoint is None else load_state(checkpoint)
    if config.steps < state.step:
        raise ConfigError(
            f"steps={config.steps}, but the run in {config.resume} has done {state.step} already",
            "a larger number goes on with it; a shorter run is another one, in a folder of its own",
        )
    return state


def load_frozen(
    config: TrainConfig, policy: LanguageModel, algorithm: Algorithm, checkpoint: Path | None, placement: Placement
) -> LanguageModel | None:
    """A reference where distance, KL or the noise gate needs one, and only there."""
    if not algorithm.needs_reference:
        return None
    stored = checkpoint / "state" / "reference" if checkpoint is not None else None
    if policy.adapter is not None and (
        config.reference.name == "initial" or is_base_of(policy, config.reference, config.model)
    ):
        return policy.renewable_reference(stored) if config.reference.refresh_every else policy.frozen_copy()
    renewed = config.reference.refresh_every > 0
    if stored is not None and renewed:
        return placement.reference(lambda device: _renewed(config, stored, device), renewed=True)
    if checkpoint is None and config.reference.name == "initial" and policy.shards is None:
        return policy.frozen_copy(renewed=renewed)
    return placement.reference(
        lambda device: load_reference(config.reference, config.model, policy, device), renewed=renewed
    )


def _renewed(config: TrainConfig, stored: Path, device: str) -> LanguageModel:
    model = load_policy(config.model, device, path=str(stored)).model
    model.model.requires_grad_(False)
    return model


def _evaluation(
    config: TrainConfig, policy: Policy, engine: Engine, folder: RunFolder
) -> Callable[[int], dict[str, Any] | None]:
    """Evaluation after a step, by the code of `dgpo eval`, and by the grader that it would use.

    Raises:
        ConfigError: the grader does not say right or wrong.
    """
    benchmark = config.benchmark
    if benchmark.name is None:
        return lambda step: None
    benchmark = replace(benchmark, k=config.eval.k or benchmark.k, limit=config.eval.limit or benchmark.limit)
    reward = reward_of_evaluation(config)
    loaded = load_benchmark(benchmark, grader=reward.name, limit=benchmark.limit)
    prompts = benchmark_prompts(loaded, benchmark, config.model, policy)
    name = str(benchmark.name)
    if reward.name == "function":
        _try_on(prompts[0], reward, name)

    def after(step: int) -> dict[str, Any]:
        def make_room(differences: list[str]) -> None:
            """A part of this evaluation from before a resume that changed it: no setting would make it fit again."""
            aside = folder.set_evaluation_aside(step)
            say(f"note: {differences[0]}: moved to {aside}, the evaluation begins anew")

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
                manifest={"step": step, **_evaluated_with(config, policy), **reward_facts(reward)},
                make_room=make_room,
            )
        return {"step": step, **folder.evaluation_row(result.as_record())}

    return after


def _evaluated_with(config: TrainConfig, policy: Policy) -> dict[str, Any]:
    """What may change between two sessions of a run, and decides its samples to the last bit."""
    return {
        "model": {"path": config.model.path},
        "device": policy.model.device.type,
        "compute_dtype": policy.model.computes_in,
        "compile": config.strategy.compile,
    }


def _try_on(prompt: Prompt, reward: RewardConfig, benchmark: str) -> None:
    with closing(load_grader(reward)) as grader:
        sample = try_grader(grader, prompt)
    otherwise = (
        f"benchmark.reward={own_grader(benchmark)} grades {benchmark} by its own; benchmark=none evaluates nothing"
    )
    require_right_or_wrong(sample, reward, "the evaluation in training", otherwise)


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


def _move_the_end(state: RunState, config: TrainConfig, *, says: bool) -> None:
    """Resumed with other `steps`: a schedule that decays does so from where it stands."""
    before, settings = state.planned_steps, config.optim
    if before is None or before == config.steps or settings.schedule is Schedule.constant:
        return
    if state.step >= settings.warmup_steps:
        state.decay_from = (state.step, learning_rate(state.step, before, settings, state.decay_from))
    if says:
        say(
            f"warning: steps={config.steps} in place of {before}: the {settings.schedule.name} schedule decays from "
            f"where it stands after step {state.step} to its end at step {config.steps}"
        )


def _facts(config: TrainConfig, policy: Policy, has_reference: bool, prompts: int, processes: int) -> dict[str, Any]:
    """What run.json says of the run beside its configuration."""
    return {
        "model": {"path": config.model.path, **architecture_summary(policy.model)},
        "reference": config.reference.name if has_reference else None,
        "compute_dtype": policy.model.computes_in,
        "prompts": prompts,
        "processes": processes,
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

    plain = OmegaConf.to_container(node_of(config), resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _title(config: TrainConfig, processes: Processes, state: RunState) -> str:
    rollout = config.rollout
    over = "" if processes.alone else f", {config.strategy.name} over {processes.size} processes"
    after = f"; going on after step {state.step}" if state.step else ""
    return (
        f"{config.algo.name} with gating {config.gating.name}: {config.model.name} on {config.data.name}, "
        f"{config.steps} steps of {rollout.prompts_per_step} prompts x {rollout.group_size}{over}{after}"
    )
