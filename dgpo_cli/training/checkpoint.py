"""Checkpoints that are whole or not there, each with a model that loads in transformers as it is.

    checkpoints/step_000050/model/   save_pretrained layout       state/   optimizer, counters, a renewed reference,
                                                                      rollouts drawn ahead
                                     (LoRA: an adapter's folder; with model.lora.merge a full model, state/adapter too)
    checkpoints/step_000050/manifest.json   size and SHA-256 of every file, written last
    checkpoints/latest               the name of the newest complete one; checkpoints/best likewise

A checkpoint is written into a temporary folder, synced and renamed, and only then named by `latest`. So a kill at any
moment leaves the one before as it was, and at most a temporary folder, which the next start or save removes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dgpo_cli.disk import writing
from dgpo_cli.files import read_name, remove_tree, sha256, sync, sync_folder, write_atomically
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.saving import save_merged, save_model
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.progress import measured
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.collected_file import save_collected
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.space import checkpoint_bytes
from dgpo_cli.types import ScoresGiven

TEMPORARY = ".tmp_"
MERGED_FROM = Path("state", "adapter")  # in a checkpoint whose model/ is merged
COUNTERS = Path("state", "counters.json")


@dataclass
class RunState:
    """Everything that the next step depends on beside weights and optimizer.

    No random state is among it: every draw has a seed of its own, derived from the run's seed and the draw's number.
    """

    step: int = 0  # the last step that was finished
    next_draw: int = 0
    noise_floor: float | None = None
    nonfinite_streak: int = 0
    streaks: dict[str, int] = field(default_factory=dict)  # of each piece of advice, steps in a row that it applied
    first_entropy: float | None = None  # nats, of the first step that had any
    grad_cos: float | None = None  # of the last step that measured credit/grad_cos
    warned: list[str] = field(default_factory=list)
    tracker_id: str | None = None
    planned_steps: int | None = None  # that the schedule was laid out for
    tokens_per_microbatch: int | None = None  # smaller than the setting if memory did not suffice
    decay_from: tuple[int, float] | None = None  # step and lr that a decay starts at, if a resume moved its end
    scores_given: tuple[ScoresGiven, ...] = ()  # by each function of the user's; they say what a late call scores


def checkpoint_name(step: int) -> str:
    return f"step_{step:06d}"


class Checkpoints:
    """The folder checkpoints/ of a run."""

    def __init__(
        self, run_folder: Path, *, keep: int, merge_adapter: bool = False, processes: Processes = SOLO
    ) -> None:
        self.folder = run_folder / "checkpoints"
        self.processes = processes
        self.keep = keep
        self.merge_adapter = merge_adapter

    def save(
        self,
        state: RunState,
        model: LanguageModel,
        optimizer: Optimizer,
        reference: LanguageModel | None,
        ahead: Collected | None = None,
    ) -> Path:
        """Write the checkpoint of `state.step`, name it in `latest`, then drop what is no longer kept.

        ahead: what the next step trains on, if that was drawn already; in the main process.

        Raises:
            RunError: the disk is full or not writable. Nothing that was saved before is touched.
        """
        target = self.folder / checkpoint_name(state.step)
        temporary = self.folder / f"{TEMPORARY}{target.name}"
        with writing(target, checkpoint_bytes(model, reference, merged=self.merge_adapter, states=optimizer.states)):
            try:
                if self.processes.main:
                    remove_tree(temporary, ignore_errors=True)
                    (temporary / "state").mkdir(parents=True)
                with measured():  # libraries write the large files
                    self.processes.agreed(lambda: self._write(temporary, state, model, optimizer, reference))
                if self.processes.main and ahead is not None:
                    save_collected(ahead, state.step + 1, temporary / "state")
                if self.processes.main:
                    _write_manifest(temporary)
                    _replace(temporary, target)
                    write_atomically(self.folder / "latest", target.name)
            except Exception:
                remove_tree(temporary, ignore_errors=True)  # a full disk gets its room back
                raise
        if self.processes.main:
            self._drop_old(state.step)  # only now: until `latest` names the new one, the old ones are all there is
        self.processes.highest(0)  # no process goes on before the checkpoint stands
        return target

    def newest_name(self) -> str | None:
        """What `latest` says, if it is a name."""
        return read_name(self.folder / "latest") or None

    def name_best(self, step: int) -> None:
        with writing(self.folder / "best", 4096):
            write_atomically(self.folder / "best", checkpoint_name(step))

    def rewind(self, newest: Path | None) -> None:
        """Remove half-written checkpoints, and the names of those that are newer than `newest`, where the run goes on.

        The newer ones are damaged. They stay until the run has saved another.
        """
        for unfinished in self.folder.glob(f"{TEMPORARY}*"):
            remove_tree(unfinished, ignore_errors=True)
        for name in ("latest", "best"):
            file = self.folder / name
            named = read_name(file)
            if name == "latest" and newest is not None and named != newest.name:
                with writing(file, 4096):
                    write_atomically(file, newest.name)
            elif newest is None or named > newest.name or not named or not (self.folder / named).is_dir():
                file.unlink(missing_ok=True)

    def newest_intact(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint with every file as it was written, and a warning for each newer one."""
        warnings: list[str] = []
        for path in sorted(self.folder.glob("step_*"), reverse=True):
            damage = _damage(path)
            if damage is None:
                return path, warnings
            warnings.append(f"checkpoint {path} is damaged ({damage}) and left out")
        return None, warnings

    def _write(
        self,
        folder: Path,
        state: RunState,
        model: LanguageModel,
        optimizer: Optimizer,
        reference: LanguageModel | None,
    ) -> None:
        """Every process writes its part of the optimizer. The main one writes all else: models go out whole.

        A model in one piece costs a gathering, and loads as it is in transformers, vLLM and `dgpo eval`.
        """
        main = self.processes.main
        self._save_weights(model, folder)
        self.processes.highest(0)  # the folder is there
        optimizer.save(folder / "state")
        if reference is not None:
            save_model(reference, reference_folder(folder), writes=main)
        if main:
            (folder / COUNTERS).write_text(json.dumps(asdict(state)), encoding="utf-8")

    def _save_weights(self, model: LanguageModel, checkpoint: Path) -> None:
        main = self.processes.main
        if model.adapter is not None and self.merge_adapter:
            save_model(model, checkpoint / MERGED_FROM, writes=main)
            if main:
                save_merged(model, checkpoint / MERGED_FROM, checkpoint / "model")
        else:
            save_model(model, checkpoint / "model", writes=main)

    def _drop_old(self, step: int) -> None:
        """Keep the newest up to `step` and the best. Later ones were damaged: the run went back to before them."""
        current = checkpoint_name(step)
        complete = sorted(self.folder.glob("step_*"))
        newest = [path.name for path in complete if path.name <= current][-self.keep :]
        kept = {*newest, read_name(self.folder / "best")}
        for path in complete:
            if path.name not in kept:
                remove_tree(path)


def policy_folder(checkpoint: Path) -> Path:
    """Where a checkpoint holds the weights that training goes on from: of a LoRA run its adapter, else the model."""
    merged = checkpoint / MERGED_FROM
    return merged if merged.is_dir() else checkpoint / "model"


def reference_folder(checkpoint: Path) -> Path:
    """Where a checkpoint holds its reference, if that is renewed."""
    return checkpoint / "state" / "reference"


def load_state(path: Path) -> RunState:
    stored = json.loads((path / COUNTERS).read_text(encoding="utf-8"))
    if stored["decay_from"] is not None:
        stored["decay_from"] = tuple(stored["decay_from"])
    given = stored.get("scores_given") or []
    given = [given] if isinstance(given, dict) else given  # of one function, before there could be several
    stored["scores_given"] = tuple(ScoresGiven(**one) for one in given)
    known = {one.name for one in fields(RunState)}  # another version may have written more
    return RunState(**{name: value for name, value in stored.items() if name in known})


def _replace(temporary: Path, target: Path) -> None:
    """Give a complete checkpoint its name.

    Another can have the name already: it was damaged, or its run was stopped before `latest` named it. A folder that is
    not empty can't be replaced in one call, so that one is moved away first. A kill in between leaves the name free,
    and `newest_intact` finds the one before.
    """
    replaced = target.with_name(f"{TEMPORARY}replaced_{target.name}")
    if target.exists():
        os.replace(target, replaced)
    os.replace(temporary, target)
    sync_folder(target.parent)
    remove_tree(replaced, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    """Size and SHA-256 of every file as it is read back, all of them synced: the manifest must not be on disk first."""
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as stream:
                digest = sha256(stream)
                sync(stream)
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(path)
    write_atomically(folder / "manifest.json", json.dumps({"files": files}, indent=1))


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None. A manifest that can't be ours is damage too."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return "no readable manifest.json"
    if COUNTERS.as_posix() not in expected:
        return f"manifest.json does not name {COUNTERS}"
    found = (_damage_of_file(folder, name, size, digest) for name, (size, digest) in expected.items())
    return next((damage for damage in found if damage is not None), None)


def _damage_of_file(folder: Path, name: str, size: int, digest: str) -> str | None:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return f"manifest.json names {name!r}, which is not in it"
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or of another size"
        with path.open("rb") as stream:
            if sha256(stream) != digest:
                return f"{name} has another SHA-256"
    except (OSError, ValueError) as error:  # a flipped bit made a name that no file can have, or the disk fails
        return f"{name!r} cannot be read: {error}"
    return None
