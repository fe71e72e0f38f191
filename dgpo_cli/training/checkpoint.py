"""Checkpoints that are whole or not there, each with a model that loads in transformers as it is.

    checkpoints/step_000050/model/   save_pretrained layout       state/   optimizer, counters, a renewed reference,
                                                                      rollouts drawn ahead
                                     (LoRA: an adapter's folder; with model.lora.merge a full model, state/adapter too)
    checkpoints/step_000050/manifest.json   size and SHA-256 of every file, written last
    checkpoints/latest               the name of the newest complete one; checkpoints/best likewise

A checkpoint is written into a temporary folder, synced and renamed, and only then named by `latest`. So a kill at any
moment leaves the one before as it was, and at most a temporary folder, which the next start or save removes. Each
process writes and hashes a share of it, beside the steps that follow with checkpoint.beside (saving_beside.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

from dgpo_cli.disk import writing
from dgpo_cli.files import Written, read_name, remove_tree, sync_folder, write_atomically
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.saving import Job, model_jobs, save_merged
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.progress import measured
from dgpo_cli.traffic import CHECKPOINT
from dgpo_cli.training.checkpoint_files import COUNTERS, damage_of, write_manifest
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.collected_file import save_collected
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.saving_beside import SavingBeside
from dgpo_cli.training.space import checkpoint_bytes
from dgpo_cli.types import ScoresGiven

TEMPORARY = ".tmp_"
MERGED_FROM = Path("state", "adapter")  # in a checkpoint whose model/ is merged


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
        self,
        run_folder: Path,
        *,
        keep: int,
        merge_adapter: bool = False,
        beside: bool = False,
        processes: Processes = SOLO,
    ) -> None:
        """beside: files are written beside the steps that follow, from copies of weights and moments."""
        self.folder = run_folder / "checkpoints"
        self.processes = processes
        self.keep = keep
        self.merge_adapter = merge_adapter
        self.beside = beside
        self._underway: SavingBeside | None = None

    def save(
        self,
        state: RunState,
        model: LanguageModel,
        optimizer: Optimizer,
        reference: LanguageModel | None,
        ahead: Collected | None = None,
    ) -> Path:
        """Write the checkpoint of `state.step`, name it in `latest`, then drop what is no longer kept.

        All processes call it, and each writes a part. `beside`: it stands once `settle` has returned.
        ahead: what the next step trains on, if that was drawn already; in the main process.

        Raises:
            RunError: the disk is full or not writable. Nothing that was saved before is touched.
        """
        self.settle()
        target = self.folder / checkpoint_name(state.step)
        temporary = self.folder / f"{TEMPORARY}{target.name}"
        needed = checkpoint_bytes(model, reference, merged=self.merge_adapter, states=optimizer.states)
        finish = partial(self._finish, temporary, target, state.step)
        with writing(target, needed):
            try:
                if self.processes.main:
                    remove_tree(temporary, ignore_errors=True)
                    (temporary / "state").mkdir(parents=True)
                    (temporary / COUNTERS).write_text(json.dumps(asdict(state)), encoding="utf-8")
                    if ahead is not None:
                        save_collected(ahead, state.step + 1, temporary / "state")
                self.processes.highest(0)  # the folder is there
                jobs = self._jobs(temporary, model, optimizer, reference)
                with measured():  # large files are written
                    if self.beside:
                        held = self.processes.agreed(lambda: list(jobs))
                        self._underway = SavingBeside(held, finish, target, temporary, needed, self.processes)
                        return target
                    found = self.processes.agreed(lambda: _done(jobs))
                parts = self.processes.to_main(found, CHECKPOINT)
                if self.processes.main:
                    finish({path: one for part in parts for path, one in part.items()})
            except Exception:
                remove_tree(temporary, ignore_errors=True)  # a full disk gets its room back
                raise
        self.processes.highest(0)  # no process goes on before the checkpoint stands
        return target

    def settle(self) -> None:
        """Wait for a checkpoint that is being written beside. All processes call it.

        Raises:
            RunError: as `save`, in all of them.
        """
        underway, self._underway = self._underway, None
        if underway is not None:
            self.processes.agreed(underway.ended)

    def give_up(self) -> None:
        """After an error: let this process's part be written, if it takes no longer than a moment. Nobody is asked."""
        if self._underway is not None:
            self._underway.give_up()

    def _finish(self, temporary: Path, target: Path, step: int, known: Mapping[Path, Written]) -> None:
        """The main process's last part, once all files are there."""
        write_manifest(temporary, known)
        _replace(temporary, target)
        write_atomically(self.folder / "latest", target.name)
        self._drop_old(step)  # only now: until `latest` names the new one, the old ones are all there is

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

    def newest_intact(self, *, alone: bool = False) -> tuple[Path | None, list[str]]:
        """The newest checkpoint with every file as it was written, and a warning for each newer one.

        All processes call it, and each reads a share of the files again; `alone`: the main one does, and all of them.
        """
        warnings: list[str] = []
        processes = SOLO if alone else self.processes
        share = (processes.rank, processes.size)
        for path in processes.from_main(sorted(self.folder.glob("step_*"), reverse=True)):
            damage = next((one for one in processes.gathered(damage_of(path, share)) if one is not None), None)
            if damage is None:
                return path, warnings
            warnings.append(f"checkpoint {path} is damaged ({damage}) and left out")
        return None, warnings

    def _jobs(
        self, folder: Path, model: LanguageModel, optimizer: Optimizer, reference: LanguageModel | None
    ) -> Iterator[Job]:
        """Every process writes its part of the optimizer, and whole weights its share of the model's files.

        A model in whole weights costs a gathering, and loads as it is in transformers, vLLM and `dgpo eval`.
        """
        yield from self._model_jobs(model, folder)
        yield from optimizer.jobs(folder / "state", copies=self.beside)
        if reference is not None:
            yield from model_jobs(reference, reference_folder(folder), self.processes, copies=self.beside)

    def _model_jobs(self, model: LanguageModel, checkpoint: Path) -> Iterator[Job]:
        if model.adapter is None or not self.merge_adapter:
            yield from model_jobs(model, checkpoint / "model", self.processes, copies=self.beside)
            return
        yield from model_jobs(model, checkpoint / MERGED_FROM, self.processes, copies=self.beside)
        if self.processes.main:  # at once: transformers changes torch's default dtype while it reads the base
            save_merged(model, checkpoint / MERGED_FROM, checkpoint / "model")

    def _drop_old(self, step: int) -> None:
        """Keep the newest up to `step` and the best. Later ones were damaged: the run went back to before them."""
        current = checkpoint_name(step)
        complete = sorted(self.folder.glob("step_*"))
        newest = [path.name for path in complete if path.name <= current][-self.keep :]
        kept = {*newest, read_name(self.folder / "best")}
        for path in complete:
            if path.name not in kept:
                remove_tree(path)


def _done(jobs: Iterable[Job]) -> dict[Path, Written]:
    return {path: one for job in jobs for path, one in job().items()}


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
