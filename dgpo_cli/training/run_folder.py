"""A training run's folder: what is written where, and what a resumed run takes back."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import dgpo_cli
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.stored import save as save_config
from dgpo_cli.disk import writing
from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.files import append_line, read_lines, remove_tree, to_json, write_atomically
from dgpo_cli.progress import each, within
from dgpo_cli.terminal import say

OWNED = (
    *("config.yaml", "run.json", "metrics.jsonl", "eval.jsonl", "evals", "checkpoints", "rollouts", "report.html"),
    *("wandb", "tensorboard"),
)
GIT_SECONDS = 5.0
SMALL_FILE = 4096  # bytes: one block holds run.json or a row


class RunFolder:
    """Paths and rows of one run. Rows go to disk as they come, so a kill loses none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        self.evaluations = folder / "eval.jsonl"

    def start(self, config: TrainConfig, facts: dict[str, Any]) -> None:
        """Write config.yaml and run.json of a new or continued run.

        Raises:
            ConfigError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_config(config, self.folder / "config.yaml")
            earlier, started = self._seconds_before(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
            self._run = {
                "version": dgpo_cli.__version__,
                "git_commit": _git_commit(),
                **self._commands(resumed=config.resume is not None),
                "first_started": self._stored_run().get("first_started", started) if config.resume else started,
                "started": started,
                "hardware": hardware(),
                "versions": versions(),
                **facts,
                "wall_seconds": earlier,
                "status": "running",
            }
            self._earlier, self._clock = earlier, time.monotonic()
            self._write_run()
        except OSError as error:
            raise ConfigError(
                f"the run folder {self.folder} cannot be written: {error.strerror or error}",
                "hydra.run.dir=FOLDER names another one",
            ) from error

    def _commands(self, *, resumed: bool) -> dict[str, Any]:
        """The command that began the run, and those that went on with it."""
        typed, stored = shlex.join(["dgpo", *sys.argv[1:]]), self._stored_run()
        if not resumed or "command" not in stored:
            return {"command": typed, "resumes": []}
        return {"command": stored["command"], "resumes": [*stored.get("resumes", []), typed]}

    @property
    def first_start(self) -> str:
        """When the run began, as run.json has it."""
        return str(self._run["first_started"])

    def note(self, **facts: Any) -> None:
        """Add facts to run.json."""
        self._run |= facts
        self._write_run()

    def tracker_id(self) -> str | None:
        """The W&B run that run.json names: known before the first checkpoint is."""
        return self._stored_run().get("wandb_run")

    @property
    def manifest(self) -> dict[str, Any]:
        """run.json as it stands at the start, without what changes later."""
        return {name: value for name, value in self._run.items() if name not in ("status", "wall_seconds")}

    def finish(self, status: str, **facts: Any) -> None:
        """Set run.json's status: done | failed | interrupted. A full disk is only said: it hides no other error."""
        self._run |= facts | {"status": status}
        try:
            with writing(self.folder / "run.json", SMALL_FILE):
                self._write_run()
        except RunError as error:
            say(f"warning: {error}")

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Raises RunError where the disk is full, and leaves metrics.jsonl as it was."""
        with writing(self.metrics, SMALL_FILE):
            append_line(self.metrics, row)

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Raises RunError where the disk is full, and leaves eval.jsonl as it was."""
        with writing(self.evaluations, SMALL_FILE):
            append_line(self.evaluations, row)

    def evaluated_steps(self, benchmark: str) -> dict[int, dict[str, Any]]:
        """The rows of eval.jsonl of a benchmark, by step."""
        return {int(row["step"]): row for row in read_lines(self.evaluations) if row["benchmark"] == benchmark}

    def evaluation_folder(self, step: int, benchmark: str | None = None) -> Path:
        """evals/step_000001; `benchmark`: the folder of one of several, below it."""
        folder = self.folder / "evals" / f"step_{step:06d}"
        return folder if benchmark is None else folder / benchmark

    @staticmethod
    def set_evaluation_aside(folder: Path) -> Path:
        """Move an evaluation's folder beside itself, nothing lost, and leave an empty one; where it is now."""
        aside = _free_name(folder.with_name(f"before_resume_{folder.name}"))
        folder.rename(aside)
        folder.mkdir()
        return aside

    @staticmethod
    def evaluation_row(results: dict[str, Any]) -> dict[str, Any]:
        """What eval.jsonl keeps of results.json."""
        names = ("benchmark", "n_problems", "n_samples", "avg_at_k", "reward", "pass_at_k", "maj_at_k")
        rest = ("truncated_fraction", "no_answer_fraction", "completion_tokens_mean", "seconds")
        return {name: results[name] for name in (*names, *rest)}

    def save_rollouts(self, step: int, records: list[dict[str, Any]], *, name: str = "step") -> Path:
        """rollouts/step_000001.jsonl, replaced as a whole."""
        folder = self.folder / "rollouts"
        path = folder / f"{name}_{step:06d}.jsonl"
        text = "".join(to_json(record) + "\n" for record in each(records))
        with writing(path, len(text)):
            folder.mkdir(exist_ok=True)
            write_atomically(path, text)
        return path

    def save_page(self, page: str) -> Path:
        """report.html, replaced as a whole: a browser that reloads it finds the old one or the new one."""
        path = self.folder / "report.html"
        with writing(path, len(page)):
            write_atomically(path, page)
        return path

    def rewind(self, step: int) -> None:
        """Drop rows and evaluations past `step`, with a copy kept beside them."""
        for path in (self.metrics, self.evaluations):
            if not path.is_file():
                continue
            rows = read_lines(path)
            kept = "".join(to_json(row) + "\n" for row in rows if row["step"] <= step)
            if kept != path.read_text(encoding="utf-8"):
                copy = _free_name(path.with_name(f"{path.stem}.before_resume_at_{step:06d}{path.suffix}"))
                with writing(copy, 2 * path.stat().st_size):
                    shutil.copyfile(path, copy)
                    write_atomically(path, kept)
        for folder in (self.folder / "evals").glob("step_*"):
            if int(folder.name.removeprefix("step_")) > step:
                remove_tree(folder)

    def clear(self) -> None:
        """Delete the run that the folder holds (overwrite=true), and nothing else in it."""
        for name in OWNED:
            path = self.folder / name
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)

    def _seconds_before(self) -> float:
        """Wall time of the sessions before a resume."""
        return float(self._stored_run().get("wall_seconds", 0.0))

    def _stored_run(self) -> dict[str, Any]:
        try:
            stored = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def _write_run(self) -> None:
        self._run["wall_seconds"] = round(self._earlier + time.monotonic() - self._clock, 3)
        write_atomically(self.folder / "run.json", to_json(self._run, indent=2) + "\n")


def hardware() -> dict[str, Any]:
    """What the run computes on; no host name, no user."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    from importlib.metadata import version

    names = ("torch", "transformers", "tokenizers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _git_commit() -> str | None:
    """The checkout that dgpo runs from, or None where it was installed."""
    try:
        with within(GIT_SECONDS):
            result = subprocess.run(
                ["git", "rev-parse", "HEAD"],
                cwd=Path(__file__).resolve().parent,
                capture_output=True,
                text=True,
                timeout=GIT_SECONDS,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def _free_name(path: Path) -> Path:
    """The path itself, or with a number where it is taken."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return free
