"""The Weights & Biases run beside the local files. Whatever happens to it, training goes on at the same pace.

A thread of its own talks to W&B: rows wait in a queue, so a server that cannot be reached, hangs or fails costs a
warning and no time. A run that is to be online and cannot be is recorded offline, for `wandb sync`.
"""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import queue
import secrets
import string
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgpo_cli.config.groups import GatingConfig, LoggerConfig, LoggerMode
from dgpo_cli.progress import within
from dgpo_cli.terminal import say
from dgpo_cli.training.showcase import COLUMNS, completion_rows, step_page

INIT_SECONDS = 30.0  # for an online run to begin; meanwhile rows wait
FINISH_SECONDS = 10.0  # for what is not yet sent at the end; it stays on disk
ID_LETTERS = string.ascii_lowercase + string.digits
# The story of a run, in order. W&B makes a section of each prefix and sorts by name: these stand first, once more.
STORY = (
    *("accuracy", "reward/mean", "groups/no_spread", "groups/all_wrong", "completion/length_mean"),
    *("completion/truncated", "entropy/mean", "credit/ess", "hellinger/mean", "kl", "grad_norm", "seconds/step"),
)


@dataclass(frozen=True)
class Shown:
    """What a step shows of its rollouts: rows of a table, and with `gating` the credit page of the first `records`.

    All of the step's records wait for the page: credit depends on the whole batch.
    """

    step: int
    rows: list[list[Any]]
    records: list[dict[str, Any]]
    gating: GatingConfig | None


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
        # What wandb reports of its own errors would wait half a minute, at the program's end, for a server that hangs.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        logging.raiseExceptions = False  # on a full disk its own log file would put tracebacks on the terminal
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
            "group": settings.group,
            "job_type": settings.job_type,
            "tags": list(settings.tags),
            "name": name,
            "id": self.run_id,
            "resume": "allow" if run_id else None,
            "dir": str(folder),
            "config": config,
        }
        self._rows: queue.SimpleQueue[dict[str, Any] | Shown | int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(mode,), name="wandb", daemon=True)
        self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Hand over the values of a row; null is left out, as W&B has no such number."""
        if self._thread is not None:
            self._rows.put({key: value for key, value in row.items() if value is not None} | story(row))

    def show(
        self, step: int, records: list[dict[str, Any]], *, table: bool = True, gating: GatingConfig | None = None
    ) -> None:
        """Hand over a step's rollouts: a table of some and, with a gating, the credit page, which the thread makes."""
        if self._thread is not None:
            rows = completion_rows(step, records) if table else []
            self._rows.put(Shown(step, rows, records if gating else [], gating))

    def close(self, exit_code: int) -> None:
        """End the W&B run; what cannot be sent within seconds stays in the run's folder."""
        if self._thread is None:
            return
        self._rows.put(exit_code)
        with within(2 * FINISH_SECONDS + 2):
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
                if isinstance(item, Shown):
                    self._show(run, item)
                else:
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

    def _show(self, run: Any, shown: Shown) -> None:
        with _staged_in(Path(str(self._options["dir"])) / "wandb"):
            if shown.rows:
                table = self._wandb.Table(columns=list(COLUMNS), data=shown.rows)
                run.log({"step": shown.step, "completions": table})
            if shown.gating is not None:
                self._send_page(run, shown.step, step_page(shown.step, shown.records, shown.gating))

    def _send_page(self, run: Any, step: int, page: str) -> None:
        artifact = self._wandb.Artifact(f"credit-{self.run_id}", type="report", metadata={"step": step})
        with artifact.new_file("report.html", encoding="utf-8") as stream:
            # A lone surrogate becomes its own escape, which JSON reads back as it was.
            stream.write(page.encode("utf-8", errors="backslashreplace").decode("utf-8"))
        run.log_artifact(artifact)

    def _teardown(self, exit_code: int) -> None:
        """End wandb's service here, whether it lives or not: left to the end of the program a dead one is an error."""
        with contextlib.suppress(Exception):
            self._wandb.teardown(exit_code)

    def _settings(self) -> Any:
        values = {"console": "off", "silent": True, "x_disable_stats": True, "x_disable_meta": True}
        values |= {"init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS}
        known = getattr(self._wandb.Settings, "model_fields", values)
        return self._wandb.Settings(**{name: value for name, value in values.items() if name in known})


@contextlib.contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Artifacts wait in the run's folder, not in the user's home: an offline run is synced from there as it is."""
    name = "WANDB_DATA_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


def story(row: dict[str, Any]) -> dict[str, Any]:
    """`STORY`'s values once more under names that sort in its order: `0_story/01_accuracy`."""
    return {
        f"0_story/{place:02d}_{name.replace('/', '_')}": row[name]
        for place, name in enumerate(STORY, 1)
        if row.get(name) is not None
    }


def _warn(error: Exception, consequence: str = "the local files go on") -> None:
    reason = " ".join(str(error).split())[:200] or "no answer"
    say(f"warning: W&B stopped ({type(error).__name__}: {reason}); {consequence}")


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
