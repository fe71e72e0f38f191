"""What the main process of a run has alone: it reads the data, grades, evaluates, writes the folder and speaks.

Before the folder is opened everything is checked that can be refused. Models and optimizer, which every process has,
are put together in build.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.machine_checks import check_run_memory, check_share, disk_warnings
from dgpo_cli.commands.parts import load_data_prompts
from dgpo_cli.commands.training_evaluation import evaluations_after_steps, longest_evaluated
from dgpo_cli.config.attempts import begin
from dgpo_cli.config.checks import warnings as config_warnings
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import FilterBy
from dgpo_cli.config.stored import node_of
from dgpo_cli.crew import Crew
from dgpo_cli.files import read_lines
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.policy import Policy
from dgpo_cli.models.saving import architecture_summary
from dgpo_cli.processes import Processes
from dgpo_cli.reporting.console import TrainingView
from dgpo_cli.rewards.several import begin_with
from dgpo_cli.rewards.trial import require_right_or_wrong, try_grader
from dgpo_cli.terminal import phase, say
from dgpo_cli.training.checkpoint import Checkpoints, RunState
from dgpo_cli.training.collect import Collected, Collector
from dgpo_cli.training.collected_file import DrawnOtherwise, load_collected
from dgpo_cli.training.host_memory import Sharers
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.showcase import shown_name
from dgpo_cli.training.supply import Background
from dgpo_cli.training.trackers import Trackers
from dgpo_cli.types import Engine, Grader, Prompt, Sampling


@dataclass(frozen=True)
class Everywhere:
    """What every process of a run has, before the main one opens the folder."""

    folder: RunFolder
    checkpoints: Checkpoints
    checkpoint: Path | None  # that the run goes on from
    state: RunState
    policy: Policy
    reference: LanguageModel | None
    algorithm: Algorithm
    engine: Engine
    background: Background[Collected | None]
    crew: Crew


@dataclass(frozen=True)
class MainOnly:
    """What the main process alone reads and writes; the others have one that does nothing."""

    collect: Callable[[int, int], Collected]
    ahead: Collected | None  # what a checkpoint holds of the next step
    evaluations: Mapping[str, Callable[[int], dict[str, Any]]]
    tracker: Trackers
    view: TrainingView


def main_only(config: TrainConfig, run: Everywhere, grader: Grader, sharers: Sharers) -> MainOnly:
    """Read the data, check the machine, open the run's folder.

    Raises:
        DgpoError: data, grader, benchmark, memory or disk are not fit for this run. Nothing was written then.
    """
    with phase(f"reading {config.data.path}"):
        prompts = _prompts(config, run.policy, grader)
    begin_with(grader, run.state.scores_given)
    evaluations = evaluations_after_steps(config, run.policy, run.engine, run.folder)
    if run.policy.model.device.type == "cpu":  # a GPU says itself that its memory is short; a kernel kills
        tokens = run.state.tokens_per_microbatch or config.optim.tokens_per_microbatch
        resumed = run.checkpoint is not None
        check_run_memory(config, prompts, run.policy.model, run.crew.processes, tokens, sharers, resumed=resumed)
    elif config.engine.name == "vllm" and config.engine.colocated:
        check_share(config, run.policy.model, sharers, resumed=run.checkpoint is not None)
    warnings = config_warnings(config, "train")
    warnings += disk_warnings(config, run.folder.folder, run.state, run.policy.model, run.reference)
    longest = max(len(prompt.token_ids) for prompt in prompts) + config.rollout.max_completion_tokens
    run.engine.prepare(max(longest, longest_evaluated(list(evaluations.values()))))
    tracker = _open(config, run, len(prompts))
    for text in warnings:
        say(f"warning: {text}")
    collector = _collector(config, run, prompts, grader)
    title, rows = _title(config, run.crew.processes, run.state), read_lines(run.folder.metrics)
    view = TrainingView(
        config.steps,
        run.state.step + 1,
        title,
        rows,
        run.folder.folder,
        evaluations=read_lines(run.folder.evaluations),
        eval_every=config.eval.every,
    )
    return MainOnly(collector.collect, _ahead(config, run, collector), evaluations, tracker, view)


def elsewhere(config: TrainConfig, folder: Path) -> MainOnly:
    """What the other processes have in its place."""

    def not_here(*_: int) -> NoReturn:
        raise AssertionError("the main process collects")

    silent = replace(config.logger, name="none")
    tracker = Trackers(silent, folder, {}, run_id=None, name=folder.name)
    return MainOnly(not_here, None, {}, tracker, TrainingView(config.steps, 1, ""))


def _prompts(config: TrainConfig, policy: Policy, grader: Grader) -> list[Prompt]:
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
    return prompts


def _open(config: TrainConfig, run: Everywhere, prompts: int) -> Trackers:
    """Begin the run in its folder, as it was after the last saved step; its tracker. From here on files change."""
    folder, state = run.folder, run.state
    if config.overwrite and config.resume is None:
        folder.clear()
    begin(folder.folder)
    run.checkpoints.rewind(run.checkpoint)
    tracker_id = state.tracker_id or (folder.tracker_id() if config.resume else None)
    folder.start(config, _facts(config, run, prompts))
    folder.rewind(state.step)
    tracked = {} if config.logger.name == "none" else _plain(config) | {"manifest": folder.manifest}
    name = shown_name(config, folder.folder, folder.first_start)
    tracker = Trackers(config.logger, folder.folder, tracked, run_id=tracker_id, name=name, after=state.step)
    state.tracker_id = tracker.run_id or state.tracker_id
    folder.note(wandb_run=state.tracker_id, name=name)
    return tracker


def _collector(config: TrainConfig, run: Everywhere, prompts: list[Prompt], grader: Grader) -> Collector:
    return Collector(
        prompts,
        run.engine,
        grader,
        run.algorithm,
        _sampling(config),
        seed=config.seed,
        group_size=config.rollout.group_size,
        prompts_per_step=config.rollout.prompts_per_step,
    )


def _ahead(config: TrainConfig, run: Everywhere, collector: Collector) -> Collected | None:
    """What the run that goes on had drawn of its next step; without a lag that step draws with its own weights."""
    if run.checkpoint is None or not config.rollout.lag:
        return None
    try:
        return load_collected(run.checkpoint / "state", collector.request, group_size=config.rollout.group_size)
    except DrawnOtherwise:
        say(
            f"warning: data, seed or rollout.group_size is another one than when step {run.state.step + 1} was drawn "
            "ahead: it is drawn anew, by the weights that it trains"
        )
        return None


def _sampling(config: TrainConfig) -> Sampling:
    rollout = config.rollout
    return Sampling(rollout.temperature, rollout.top_p, rollout.max_completion_tokens)


def _facts(config: TrainConfig, run: Everywhere, prompts: int) -> dict[str, Any]:
    """What run.json says of the run beside its configuration."""
    return {
        "model": {"path": config.model.path, **architecture_summary(run.policy.model)},
        "reference": config.reference.name if run.reference is not None else None,
        "compute_dtype": run.policy.model.computes_in,
        "prompts": prompts,
        "processes": run.crew.processes.size,
        "sampling": {
            **asdict(_sampling(config)),
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_ids": sorted(run.policy.stop_ids),
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
