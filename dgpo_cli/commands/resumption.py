"""Where a run begins or goes on: the checkpoint, its counters, and a schedule whose end has moved."""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import Schedule
from dgpo_cli.errors import ConfigError
from dgpo_cli.terminal import say
from dgpo_cli.training.checkpoint import Checkpoints, RunState, load_state
from dgpo_cli.training.optimizer import learning_rate


def checkpoint_to_resume(config: TrainConfig, checkpoints: Checkpoints, *, says: bool) -> Path | None:
    """The newest whole checkpoint of a run that is resumed; None if there is none, or the run is new. All processes
    look for it together; the one that `says` tells of damage."""
    if config.resume is None:
        return None
    checkpoint, warnings = checkpoints.newest_intact()
    for text in warnings if says else []:
        say(f"warning: {text}")
    if checkpoint is None and says:
        say(f"{config.resume} holds no complete checkpoint: starting at step 1")
    return checkpoint


def state_to_resume(config: TrainConfig, checkpoint: Path | None) -> RunState:
    """The counters that a run goes on from.

    Raises:
        ConfigError: the run has gone further than it should.
    """
    state = RunState() if checkpoint is None else load_state(checkpoint)
    if config.steps < state.step:
        raise ConfigError(
            f"steps={config.steps}, but the run in {config.resume} has done {state.step} already",
            "a larger number goes on with it; a shorter run is another one, in a folder of its own",
        )
    return state


def move_the_end(state: RunState, config: TrainConfig, *, says: bool) -> None:
    """Note the planned end. If a resume has other `steps`, a schedule that decays does so from where it stands."""
    before, settings = state.planned_steps, config.optim
    state.planned_steps = config.steps
    if before is None or before == config.steps or settings.schedule is Schedule.constant:
        return
    if state.step >= settings.warmup_steps:
        state.decay_from = (state.step, learning_rate(state.step, before, settings, state.decay_from))
    if says:
        say(
            f"warning: steps={config.steps} in place of {before}: the {settings.schedule.name} schedule decays from "
            f"where it stands after step {state.step} to its end at step {config.steps}"
        )
