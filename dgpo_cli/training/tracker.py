"""The Weights & Biases run beside the local files. Whatever happens to it, training goes on at the same pace.

A thread of its own talks to W&B: rows wait in a queue, so a server that cannot be reached, hangs or fails costs a
warning and no time. A run that is to be online and cannot be is recorded offline, for `wandb sync`.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import queue
import secrets
import string
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from dgpo_cli.config.groups import LoggerConfig, LoggerMode

INIT_SECONDS = 30.0  # for an online run to begin; meanwhile rows wait
FINISH_SECONDS = 10.0  # for what is not yet sent at the end; it stays on disk
ID_LETTERS = string.ascii_lowercase + string.digits


class Tracker:
    """A W&B run, or nothing where logging is off or wandb fails. `run_id` is known from the start."""

    def __init__(
        self, settings: LoggerConfig, folder: Path, config: dict[str, Any], *, run_id: str | None, name: str
    ) -> None:
        mode = _mode(settings.mode)
        self.run_id: str | None = None
        self._thread: threading.Thread | None = None
        if mode == "disabled":
            return
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import wandb
        except Exception as error:
            _warn(error)
            return
        self.run_id = run_id or "".join(secrets.choice(ID_LETTERS) for _ in range(8))
        self._wandb: Any = wandb
        self._options = {
            "project": settings.project,
            "entity": settings.entity,
            "tags": list(settings.tags),
            "name": name,
            "id": self.run_id,
            "resume": "allow" if run_id else None,
            "dir": str(folder),
            "config": config,
        }
        self._rows: queue.SimpleQueue[dict[str, Any] | int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(mode,), name="wandb", daemon=True)
        self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Hand over the values of a row; null is left out, as W&B has no such number."""
        if self._thread is not None:
            self._rows.put({key: value for key, value in row.items() if value is not None})

    def close(self, exit_code: int) -> None:
        """End the W&B run; what cannot be sent within seconds stays in the run's folder."""
        if self._thread is None:
            return
        self._rows.put(exit_code)
        self._thread.join(FINISH_SECONDS + 2)
        if self._thread.is_alive():
            _kill_service()  # or wandb would wait for it when the program ends
            self._thread.join(FINISH_SECONDS)
        self._thread = None

    def _serve(self, mode: str) -> None:
        """The thread: rows until an exit code comes."""
        exit_code = 1
        try:
            run = self._begin(mode)
            while not isinstance(item := self._rows.get(), int):
                run.log(item)
            exit_code = item
            run.finish(exit_code=exit_code)
        except Exception as error:
            _warn(error)
        finally:
            self._teardown(exit_code)

    def _begin(self, mode: str) -> Any:
        try:
            run = self._wandb.init(mode=mode, settings=self._settings(), **self._options)
        except Exception as error:
            if mode != "online":
                raise
            _warn(error, "the run is recorded offline, wandb sync sends it later")
            _kill_service()  # it may go on trying
            self._teardown(1)
            run = self._wandb.init(mode="offline", settings=self._settings(), **self._options)
        run.define_metric("*", step_metric="step")
        return run

    def _teardown(self, exit_code: int) -> None:
        """End wandb's service here, whether it lives or not: left to the end of the program a dead one is an error."""
        with contextlib.suppress(Exception):
            self._wandb.teardown(exit_code)

    def _settings(self) -> Any:
        values = {"console": "off", "silent": True, "x_disable_stats": True, "x_disable_meta": True}
        values |= {"init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS}
        known = getattr(self._wandb.Settings, "model_fields", values)
        return self._wandb.Settings(**{name: value for name, value in values.items() if name in known})


def _warn(error: Exception, consequence: str = "the local files go on") -> None:
    reason = " ".join(str(error).split())[:200] or "no answer"
    print(f"warning: W&B stopped ({type(error).__name__}: {reason}); {consequence}", file=sys.stderr)


def _kill_service() -> None:
    """End wandb's own process, which does not answer."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("wandb"):
                child.kill()


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
