"""Checkpoints that are whole or not there, each with a model that loads in transformers as it is.

    checkpoints/step_000050/model/   save_pretrained layout       state/   optimizer, counters, a renewed reference
    checkpoints/step_000050/manifest.json   size and SHA-256 of every file, written last
    checkpoints/latest               the name of the newest complete one; checkpoints/best likewise

A checkpoint is written into a temporary folder, synced and renamed, and only then named by `latest`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.errors import RunError
from dgpo_cli.files import sync_folder, write_atomically
from dgpo_cli.models import LanguageModel, save_model
from dgpo_cli.training.optimizer import Optimizer


@dataclass
class RunState:
    """Everything that the next step depends on beside weights and optimizer."""

    step: int = 0  # the last step that was finished
    next_draw: int = 0
    noise_floor: float | None = None
    nonfinite_streak: int = 0
    uniform_streak: int = 0  # steps in a row with credit/ess above 0.999
    warned: list[str] = field(default_factory=list)
    tracker_id: str | None = None
    planned_steps: int | None = None  # that the schedule was laid out for
    decay_from: tuple[int, float] | None = None  # step and lr that a decay starts at, where a resume moved its end


def checkpoint_name(step: int) -> str:
    return f"step_{step:06d}"


class Checkpoints:
    """The folder checkpoints/ of a run."""

    def __init__(self, run_folder: Path, *, keep: int) -> None:
        self.folder = run_folder / "checkpoints"
        self.keep = keep

    def save(
        self, state: RunState, model: LanguageModel, optimizer: Optimizer, reference: LanguageModel | None
    ) -> Path:
        """Write the checkpoint of `state.step`, name it in `latest`, then drop what is no longer kept.

        Raises:
            RunError: the disk is full or not writable. Nothing that was saved before is touched.
        """
        target = self.folder / checkpoint_name(state.step)
        temporary = self.folder / f".tmp_{target.name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            (temporary / "state").mkdir(parents=True)
            save_model(model, temporary / "model")
            torch.save(optimizer.state_dict(), temporary / "state" / "optimizer.pt")
            if reference is not None:
                save_model(reference, temporary / "state" / "reference")
            (temporary / "state" / "counters.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
            _write_manifest(temporary)
            if target.exists():
                shutil.rmtree(target)
            os.replace(temporary, target)
            sync_folder(self.folder)
            write_atomically(self.folder / "latest", target.name)
        except OSError as error:
            needed = sum(parameter.numel() for parameter in model.model.parameters()) * 12
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunError(
                f"the checkpoint of step {state.step} could not be written to {target}: {error.strerror or error} "
                f"(it needs about {needed:,} bytes)",
                "make room, then continue with resume=; what was saved before is intact",
            ) from error
        self._drop_old()
        return target

    def name_best(self, step: int) -> None:
        write_atomically(self.folder / "best", checkpoint_name(step))

    def newest_intact(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose every file is as it was written, and warnings about those that are not."""
        warnings: list[str] = []
        for path in sorted(self.folder.glob("step_*"), reverse=True):
            damage = _damage(path)
            if damage is None:
                return path, warnings
            warnings.append(f"checkpoint {path} is damaged ({damage}) and left out")
        return None, warnings

    def _drop_old(self) -> None:
        complete = sorted(self.folder.glob("step_*"))
        best = self.folder / "best"
        kept = {best.read_text(encoding="utf-8").strip()} if best.is_file() else set()
        for path in complete[: -self.keep]:
            if path.name not in kept:
                shutil.rmtree(path)


def load_state(path: Path) -> RunState:
    stored = json.loads((path / "state" / "counters.json").read_text(encoding="utf-8"))
    if stored["decay_from"] is not None:
        stored["decay_from"] = tuple(stored["decay_from"])
    return RunState(**stored)


def load_optimizer(path: Path, optimizer: Optimizer, device: torch.device) -> None:
    state = torch.load(path / "state" / "optimizer.pt", map_location=device, weights_only=True)
    optimizer.load_state_dict(state)


def _write_manifest(folder: Path) -> None:
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                os.fsync(stream.fileno())
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(path)
    write_atomically(folder / "manifest.json", json.dumps({"files": files}, indent=1))


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "no readable manifest.json"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            return f"{name} is missing or of another size"
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected["sha256"]:
                return f"{name} has another SHA-256"
    return None
