"""What a job is given: its configurations in job.yaml, and the ways to take them up again after it was cut off."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgpo_cli.config.stored import container_of
from dgpo_cli.config.sweep_groups import SweepConfig
from dgpo_cli.jobs import JOB_FILE, read_job, typed_configs, write_job


def first_configs(configs: list[Any], folder: Path) -> list[Any]:
    """The configurations of a job that begins: with a name of its own in the W&B group of the sweep."""
    configs = copy.deepcopy(configs)
    for config in configs:
        if hasattr(config, "logger") and config.logger.group is None:
            config.logger.group = folder.parent.name
        if getattr(config, "name", None):
            config.name = f"{config.name}-{folder.name}"
        config.sweep = SweepConfig()
    return configs


def next_configs(command: str, folder: Path) -> list[Any] | None:
    """Those of a job that was cut off, to go on exactly; None of one that has not begun.

    They are the stored ones and never composed again. A training run goes on from its last checkpoint, an evaluation
    with the samples that it has.
    """
    file = folder / JOB_FILE
    content = read_job(file) if file.is_file() else {}
    if not content.get("configs"):
        return None
    configs = typed_configs(command, content)
    begun = command != "train" or (folder / "config.yaml").is_file()
    if not begun:
        return configs
    return [
        replace(config, overwrite=False, **({"resume": str(folder)} if command == "train" else {}))
        for config in configs
    ]


def write(folder: Path, number: int, command: str, overrides: list[str], configs: list[Any]) -> None:
    """Write the job's file, for a process that is about to begin."""
    content = {"number": number, "command": command, "overrides": overrides, "exit_code": None}
    write_job(folder, {**content, "configs": [container_of(config) for config in configs]})


def note_exit(folder: Path, code: int) -> None:
    """Add a job's exit code to its file."""
    if (folder / JOB_FILE).is_file():
        write_job(folder, {**read_job(folder / JOB_FILE), "exit_code": code})


def folder_of(sweep: Path, overrides: list[str]) -> Path | None:
    """The folder below `sweep` that holds the job with these overrides."""
    for file in sweep.glob(f"*/{JOB_FILE}"):
        if sorted(read_job(file).get("overrides", [])) == sorted(overrides):
            return file.parent
    return None


def has_ended_well(command: str, folder: Path) -> bool:
    """Whether a job is done by its file, or by its own record."""
    return read_job(folder / JOB_FILE).get("exit_code") == 0 or is_done(command, folder)


def is_done(command: str, folder: Path) -> bool:
    """Whether a job finished although nobody was left to note it: the training run's own record says so."""
    if command != "train":
        return False
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(run, dict) and run.get("status") == "done"
