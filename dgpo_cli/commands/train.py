"""`dgpo train`: starting the processes of a run, and ending it."""

from __future__ import annotations

from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.allocation import is_out_of_memory
from dgpo_cli.command_lines import command
from dgpo_cli.commands.build import build
from dgpo_cli.commands.hub_upload import upload
from dgpo_cli.commands.machine_checks import check_gpus_to_share
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import Device, StrategyConfig
from dgpo_cli.environment import Place, place
from dgpo_cli.errors import ConfigError, Interrupted
from dgpo_cli.meeting import meet
from dgpo_cli.models.sequence_parallel import require_teams
from dgpo_cli.processes import SOLO, LostProcess, Processes, join, leave, watching_for_loss
from dgpo_cli.progress import measured
from dgpo_cli.reporting.tables import score_text
from dgpo_cli.rewards import load_grader
from dgpo_cli.terminal import put, say
from dgpo_cli.training.checkpoint import load_state
from dgpo_cli.training.hub_push import require_repository
from dgpo_cli.training.launch import launch
from dgpo_cli.training.lock import locked
from dgpo_cli.training.loop import Trainer
from dgpo_cli.training.out_of_memory import out_of_memory
from dgpo_cli.training.stopping import StopGuard, StopRequested, UnfinishedStep
from dgpo_cli.training.watchdog import Watchdog


def run(config: TrainConfig, folder: Path) -> None:
    """Train; the last line on stdout is the run's folder.

    Raises:
        DgpoError: nothing was started (exit 2), the run failed (1), or a signal ended it after it was saved (130, 143).
    """
    check_gpus_to_share(config)
    here = place()
    if here is None and config.strategy.name != "single":
        workers = workers_of(config.strategy)
        require_teams(workers, config.strategy.sequence_parallel)
        launch(config, folder, workers)
    elif here is None or (here.size == 1 and config.strategy.name == "single"):
        _run(config, folder, SOLO)
    else:
        _run_with_others(config, folder, here)


def workers_of(strategy: StrategyConfig) -> int:
    """Processes to start on this machine.

    Raises:
        ConfigError: more than it has GPUs, or none named where it has none.
    """
    gpus = 0 if strategy.device is Device.cpu else torch.cuda.device_count()
    if strategy.num_processes is None and not gpus:
        raise ConfigError(
            f"strategy={strategy.name} takes a process for each GPU, and torch sees no GPU here",
            "strategy.num_processes=2 starts two on the CPU",
        )
    if gpus and (strategy.num_processes or 1) > gpus:
        raise ConfigError(
            f"strategy.num_processes={strategy.num_processes}, but torch sees {gpus} GPUs here",
            f"strategy.num_processes={gpus}, or strategy.device=cpu",
        )
    return strategy.num_processes or gpus


def _run_with_others(config: TrainConfig, folder: Path, here: Place) -> None:
    """This process's part in a run of several, or of one that is sharded all the same."""
    if config.strategy.name == "single":
        raise ConfigError(
            f"strategy=single computes in one process, and the launcher has started {here.size}",
            "strategy=ddp or strategy=fsdp",
        )
    require_teams(here.size, config.strategy.sequence_parallel)
    on_cpu = config.strategy.device is Device.cpu or not torch.cuda.is_available()
    try:
        with watching_for_loss():
            meeting = meet(here, config.strategy.connect_seconds)
            with Watchdog(config.strategy.stall_seconds, here.rank, meeting.board).watching():
                device = "cpu" if on_cpu else "cuda"
                processes = join(meeting, device=device, connect_seconds=config.strategy.connect_seconds)
                config, folder = processes.from_main((config, folder))
                _run(config, folder, processes)
            leave()
    except LostProcess as lost:
        if not here.own_worker:
            raise
        said = "error" if here.rank else "note"  # the launcher names the one that is gone
        say(f"{said}: {lost}")
        raise SystemExit(LostProcess.exit_code) from lost


def _run(config: TrainConfig, folder: Path, processes: Processes) -> None:
    if config.probe:
        from dgpo_cli.commands.probe import probe

        probe(config, processes)
        return
    guard = StopGuard(config.checkpoint.grace_seconds, config.checkpoint.signals)
    guard.share(processes)
    with guard.listening(), locked(folder) if processes.main else nullcontext():
        try:
            with ExitStack() as held:  # grader and engine: what has processes and threads of its own
                grader = held.enter_context(closing(load_grader(config.reward))) if processes.main else None
                if config.push_to_hub and processes.main:
                    require_repository(config.push_to_hub)
                with measured():  # data and models are fetched and loaded
                    trainer = build(config, folder, grader, guard, processes, held)
                _train(trainer)
                if config.push_to_hub and processes.main:
                    upload(trainer, config.push_to_hub)
        except StopRequested:  # before the first step: nothing to save
            raise _interrupted(guard, folder) from None
    if processes.main:
        put(str(folder))


def _train(trainer: Trainer) -> None:
    main, guard = trainer.processes.main, trainer.guard
    status, code = "failed", 1
    try:
        with trainer.view if main else nullcontext():
            trainer.run()
        trainer.save()
        trainer.checkpoints.settle()
        status, code = "done", 0
        if main:
            _say_goodbye(trainer)
    except (StopRequested, UnfinishedStep) as stop:
        status, code = "interrupted", guard.exit_code
        _save_interrupted(trainer, finished=isinstance(stop, StopRequested))
        raise _interrupted(guard, trainer.folder.folder, trainer.state.step) from None
    except Exception as error:
        trainer.checkpoints.give_up()
        if is_out_of_memory(error):
            raise out_of_memory(error) from error
        raise
    finally:
        guard.hold()
        if main:
            trainer.tracker.close(code)
            trainer.folder.finish(status, last_step=trainer.state.step)


def _save_interrupted(trainer: Trainer, *, finished: bool) -> None:
    """After a signal: the state after the last finished step is saved, or the last checkpoint stands."""
    trainer.checkpoints.settle()
    if finished and trainer.state.step:
        trainer.save()
    elif trainer.processes.main:
        newest, _ = trainer.checkpoints.newest_intact(alone=True)
        trainer.state.step = load_state(newest).step if newest is not None else 0
    if trainer.processes.main:
        trainer.folder.rewind(trainer.state.step)


def _interrupted(guard: StopGuard, folder: Path, step: int = 0) -> Interrupted:
    saved = f"saved after step {step}" if step else "no step was finished"
    return Interrupted(
        f"interrupted: {saved}",
        f"{command('train', resume=folder)} continues it" if (folder / "config.yaml").is_file() else "",
        exit_code=guard.exit_code,
    )


def _say_goodbye(trainer: Trainer) -> None:
    """Accuracy before and after with intervals, the folder, the next command."""
    folder = trainer.folder.folder
    for name in trainer.config.benchmark_names:
        rows = trainer.folder.evaluated_steps(name)
        if not rows:
            continue
        first, last = rows[min(rows)], rows[max(rows)]
        counts = [row.get("n_problems") for row in (first, last)]
        others = f"; before on {counts[0]} problems, after on {counts[1]}" if counts[0] != counts[1] else ""
        say(f"{first['benchmark']}: {_accuracy(first)} before, {_accuracy(last)} after training{others}")
    say(f"run: {folder}")
    if (folder / "report.html").is_file():
        say(f"page: {folder / 'report.html'}")
    before = trainer.config.model
    reference = {"reference__path": before.path} if before.name == "path" else {"reference": before.name}
    benchmark = {} if trainer.config.benchmark.name else {"benchmark": "NAME"}
    evaluate = command("eval", model__path=folder, **benchmark)
    say(f"next: {evaluate}   or: {command('rollout', model__path=folder, **reference)}")


def _accuracy(row: dict[str, Any]) -> str:
    average = row["avg_at_k"]
    if average is None:
        return score_text(row)
    low, high = average["ci95"] or (None, None)
    interval = f" [{low:.1%}, {high:.1%}]" if low is not None else ""
    return f"{average['value']:.1%}{interval}"
