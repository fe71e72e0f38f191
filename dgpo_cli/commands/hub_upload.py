"""`push_to_hub=`: which files of a run go to the hub, and with which card."""

from __future__ import annotations

from dgpo_cli.command_lines import command
from dgpo_cli.errors import RunError
from dgpo_cli.reporting.model_card import model_card
from dgpo_cli.reporting.run_files import read_json
from dgpo_cli.terminal import phase, say
from dgpo_cli.training.checkpoint import load_state
from dgpo_cli.training.hub_push import push
from dgpo_cli.training.loop import Trainer


def upload(trainer: Trainer, name: str) -> None:
    """Send the model of the last checkpoint: a full one, or an adapter.

    Raises:
        RunError: it failed; the run itself is done and saved.
    """
    folder = trainer.folder
    newest, _ = trainer.checkpoints.newest_intact(alone=True)
    if newest is None:
        raise RunError(f"push_to_hub={name}: {folder.folder} holds no intact checkpoint")
    by_step = [folder.evaluated_steps(name) for name in trainer.config.benchmark_names]
    rows = [row for evaluated in by_step for _, row in sorted(evaluated.items())]
    step = load_state(newest).step
    run = read_json(folder.folder / "run.json")
    card = model_card(trainer.config, run, rows, step=step)
    again = f"{command('train', resume=folder.folder, push_to_hub=name)} sends it again"
    with phase(f"uploading to {name}"):
        address = push(newest / "model", card, name, message=f"Step {step} of a run of dgpo", again=again)
    folder.note(hub_commit=address)
    say(f"uploaded: {address}")
