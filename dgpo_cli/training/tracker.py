"""The Weights & Biases run beside the local files. Whatever happens to it, training goes on."""

from __future__ import annotations

import netrc
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from dgpo_cli.config.groups import LoggerConfig, LoggerMode


class Tracker:
    """A W&B run, or nothing where logging is off or wandb fails."""

    def __init__(
        self, settings: LoggerConfig, folder: Path, config: dict[str, Any], *, run_id: str | None, name: str
    ) -> None:
        self.run: Any = None
        mode = _mode(settings.mode)
        if mode == "disabled":
            return
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import wandb

                self.run = wandb.init(
                    project=settings.project,
                    entity=settings.entity,
                    tags=list(settings.tags),
                    name=name,
                    id=run_id,
                    resume="allow" if run_id else None,
                    mode=mode,
                    dir=str(folder),
                    config=config,
                    settings=wandb.Settings(
                        console="off", silent=True, init_timeout=30, x_disable_stats=True, x_disable_meta=True
                    ),
                )
                self.run.define_metric("*", step_metric="step")
        except Exception as error:  # W&B is never a reason to lose a run
            self._give_up(error)

    @property
    def run_id(self) -> str | None:
        return None if self.run is None else str(self.run.id)

    def log(self, row: dict[str, Any]) -> None:
        """The values of a row; null is left out, as W&B has no such number."""
        if self.run is None:
            return
        try:
            self.run.log({key: value for key, value in row.items() if value is not None})
        except Exception as error:
            self._give_up(error)

    def close(self, exit_code: int) -> None:
        if self.run is None:
            return
        try:
            self.run.finish(exit_code=exit_code)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.run = None
        reason = " ".join(str(error).split())[:200]
        print(f"warning: W&B stopped ({type(error).__name__}: {reason}); the local files go on", file=sys.stderr)


def _mode(mode: LoggerMode) -> Any:
    """auto: online when an API key is at hand, else offline, never a question on the terminal."""
    if mode is not LoggerMode.auto:
        return mode.name
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    try:
        entries = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return "offline"
    return "online" if any("wandb" in host for host in entries) else "offline"
