"""`-m resume=SWEEP`: what the sweep was asked for, with further values of what it sweeps over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dgpo_cli.config.experiment import Words, name_of
from dgpo_cli.config.overrides import parse
from dgpo_cli.config.sweep_groups import SWEEP_FILE, says_how
from dgpo_cli.errors import UsageError
from dgpo_cli.sweeps.sweep_record import SweepRecord

PLACE = "hydra.sweep.dir"


@dataclass(frozen=True)
class Continued:
    """A sweep that goes on: the words of its command, its folder and its record."""

    words: Words
    config_dirs: list[Path]
    folder: Path
    record: SweepRecord


def continued(command: str, words: Words, config_dirs: list[Path]) -> Continued | None:
    """The sweep that `resume=` names among the words of a command with -m; None without it.

    Raises:
        UsageError: there is no such sweep, it is another command's, or a key is typed that it does not sweep over.
        DataError: its record cannot be read.
    """
    named = [text for text in words.overrides if text.startswith("resume=")]
    if not named:
        return None
    folder = Path(named[-1].partition("=")[2].strip("'\""))
    if not (folder / SWEEP_FILE).is_file():
        what = "no such folder" if not folder.is_dir() else f"no sweep: it has no {SWEEP_FILE}"
        hint = "-m continues a whole sweep; dgpo train resume=RUN, without -m, one run"
        raise UsageError(f"resume={folder}: {what}", hint)
    record = SweepRecord.read(folder)
    if record.command != command:
        raise UsageError(f"resume={folder}: a sweep of dgpo {record.command}", f"dgpo {record.command} -m resume=...")
    typed = [text for text in words.overrides if text not in named]
    if words.base is not None:
        raise UsageError("resume= has configurations of its own", f"leave out {words.base.name}")
    _refuse_other_keys(typed, record, folder)
    names = {name_of(text) for text in typed}
    overrides = [text for text in record.overrides if name_of(text) not in {*names, PLACE}] + typed
    base = Path(record.base) if record.base else None
    dirs = config_dirs or [Path(one) for one in record.config_dirs]
    return Continued(replace(words, overrides=overrides, base=base), dirs, folder, replace(record, overrides=overrides))


def _refuse_other_keys(typed: list[str], record: SweepRecord, folder: Path) -> None:
    """Another value of anything else would make other jobs of those that are done."""
    swept = [name_of(text) for text in record.overrides if parse(text).is_sweep_override()]
    for text in typed:
        name = name_of(text)
        if name == PLACE:
            raise UsageError(f"{text}: a sweep goes on in its own folder {folder}", f"leave out {PLACE}")
        if name not in swept and not says_how(name):
            over = ", ".join(swept) or "nothing"
            raise UsageError(
                f"{text}: the sweep {folder} is over {over}, and its jobs keep everything else",
                "further values of what it sweeps over are added to it; anything else is a sweep of its own",
            )
