"""From a configuration to a Trainer, in each process of a run.

Every process has the models, the engine and the optimizer, which are put together here. What the main process has
beside them is in main_only.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.allocation import give_back
from dgpo_cli.commands.main_only import Everywhere, elsewhere, main_only
from dgpo_cli.commands.resumption import checkpoint_to_resume, move_the_end, state_to_resume
from dgpo_cli.config.attempts import begin
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.gating_needs import reads_answer
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.crew import Crew
from dgpo_cli.engines import Served, make_engine
from dgpo_cli.evidence.first_errors import FirstErrors
from dgpo_cli.models.placement import prepare_device, threads_of
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.models.reference import load_reference
from dgpo_cli.processes import Processes
from dgpo_cli.terminal import phase
from dgpo_cli.training.checkpoint import Checkpoints, policy_folder, reference_folder
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.correction import Correction
from dgpo_cli.training.host_memory import sharers_of
from dgpo_cli.training.loop import Trainer
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.shared_folder import require_shared
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.supply import Background, Supply
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Grader


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
    run = _everywhere(config, folder, guard, processes, held)
    oracle = reads_answer(config.gating)
    shards = run.policy.model.shards
    offloaded = shards is not None and shards.rest_on_cpu
    optimizer = Optimizer(run.policy.model.model, config.optim, processes, offloaded=offloaded)
    if run.checkpoint is not None:
        optimizer.load(run.checkpoint / "state")
    move_the_end(run.state, config, says=processes.main)
    if run.engine.facts.shares_devices:
        give_back()  # a server that starts on this GPU counts what is free
    sharers = sharers_of(processes, sharded=run.policy.model.shards is not None)
    main = elsewhere(config, folder) if grader is None else main_only(config, run, grader, sharers)
    processes.highest(0)  # no process goes on before the main one has opened the folder
    if not processes.main:
        begin(folder)
    return Trainer(
        config=config,
        folder=run.folder,
        checkpoints=run.checkpoints,
        state=run.state,
        model=run.policy.model,
        reference=run.reference,
        algorithm=run.algorithm,
        supply=Supply(
            main.collect,
            run.engine,
            run.crew,
            guard,
            run.background,
            lag=config.rollout.lag,
            steps=config.steps,
            ahead=main.ahead,
            off_policy=_off_policy(config, run),
        ),
        optimizer=optimizer,
        updater=_updater(config, run, optimizer, main.view.note),
        benchmarks=main.evaluations,
        tracker=main.tracker,
        view=main.view,
        guard=guard,
        engine=run.engine,
        crew=run.crew,
        first_errors=FirstErrors(run.policy.model.tokenizer, run.policy.stop_ids) if oracle else None,
    )


def _everywhere(
    config: TrainConfig, folder: Path, guard: StopGuard, processes: Processes, held: ExitStack
) -> Everywhere:
    """The models, as they were before the first step or as a checkpoint left them, and what draws from the policy."""
    placement = prepare_device(config.strategy, config.model, processes)
    checkpoints = Checkpoints(
        folder,
        keep=config.checkpoint.keep,
        merge_adapter=config.model.lora.merge,
        beside=config.checkpoint.beside,
        processes=processes,
    )
    if placement.shards or config.resume is not None:  # else the main process alone reads and writes it
        require_shared(folder, processes)
    checkpoint = checkpoint_to_resume(config, checkpoints, says=processes.main)
    state = state_to_resume(config, checkpoint)
    trained = None if checkpoint is None else policy_folder(checkpoint)
    with phase(f"loading the weights of {config.model.path}") if processes.main else nullcontext():
        policy = load_trainee(config.model, placement, trained, seed=config.seed)
    torch.manual_seed(derive_seed("torch", config.seed))
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    reference = None
    if algorithm.needs_reference:
        kept = None if checkpoint is None else reference_folder(checkpoint)
        reference = load_reference(config.reference, config.model, policy.model, placement, kept)
    crew = Crew(processes, signal_number=lambda: guard.received or 0, stop_agreed=guard.obey, at_once=guard.at_once)
    # Closed after the engine, for a draw in the background ends with that, and before the grader.
    background = held.enter_context(closing(Background[Collected | None]()))
    threads = threads_of(config.strategy, config.model)
    served = Served(config.model, placement.computes_in, trained=True, trainers=processes.size, threads=threads)
    engine = held.enter_context(closing(make_engine(config.engine, policy=policy, crew=crew, served=served)))
    return Everywhere(
        RunFolder(folder), checkpoints, checkpoint, state, policy, reference, algorithm, engine, background, crew
    )


def _off_policy(config: TrainConfig, run: Everywhere) -> Correction:
    return Correction(config.engine.correction.name, config.engine.cap, run.engine.facts.computes_as_trained)


def _updater(config: TrainConfig, run: Everywhere, optimizer: Optimizer, say: Callable[[str], None]) -> Updater:
    updater = Updater(
        run.policy.model,
        run.reference,
        run.algorithm,
        optimizer,
        config.optim,
        temperature=config.rollout.temperature,
        say=say,
        processes=run.crew.processes,
        off_policy=_off_policy(config, run),
    )
    updater.budget.continue_with(run.state.tokens_per_microbatch)
    return updater
