"""The files of an evaluation's folder: written whole or not at all, in strict JSON, one process at a time.

Text is escaped to ASCII, so that any completion can be stored, half a surrogate pair included.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dgpo_cli.disk import FULL, described, writing
from dgpo_cli.errors import ConfigError, DataError, RunError
from dgpo_cli.files import write_all, write_atomically

OWNED = ("manifest.json", "samples.jsonl", "results.json")
ADVICE = "hydra.run.dir=FOLDER takes another folder; overwrite=true deletes the samples and results in this one"
Record = dict[str, Any]


def make_folder(folder: Path) -> None:
    """Raises ConfigError when it cannot be made or written, and RunError where the disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "samples.jsonl").open("a").close()
    except OSError as error:
        if error.errno in FULL:
            raise RunError(described(folder, str(error.strerror), 4096), "make room, then go on") from error
        raise ConfigError(
            f"the folder {folder} cannot be written: {error.strerror or error}", "hydra.run.dir=FOLDER takes another"
        ) from error


def write_json(path: Path, record: Record) -> None:
    """Replace `path` in one move.

    Raises:
        RunError: the disk is full.
        ValueError: a number is not finite, which is a bug.
    """
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    with writing(path, len(text)):
        write_atomically(path, text)


def to_line(record: Record) -> str:
    """One line of samples.jsonl."""
    return json.dumps(record, allow_nan=False) + "\n"


def clear(folder: Path) -> None:
    """Delete the evaluation that the folder holds (overwrite=true), and nothing else in it."""
    for name in OWNED:
        (folder / name).unlink(missing_ok=True)


class SampleFile:
    """samples.jsonl: the records so far by (problem index, sample), and room for more.

    A last line that a kill cut short is taken off when the file is opened. While it is open no other process can open
    it. Raises ConfigError when one has, and DataError for a line that is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise ConfigError(
                f"{path}: another evaluation is writing here", "wait for it, or hydra.run.dir=ANOTHER_FOLDER"
            ) from error
        except OSError:  # a file system without locks: nothing guards against a second process there
            pass
        self.records = self._read()

    def append(self, records: Sequence[Record]) -> None:
        """Add records and see them on disk. Raises RunError where it is full."""
        lines = "".join(map(to_line, records)).encode()
        with writing(self.path, len(lines)):
            write_all(self._stream, lines)
            os.fsync(self._stream.fileno())
        self.records.update({(record["index"], record["sample"]): record for record in records})

    def sort(self, keys: Sequence[tuple[int, int]]) -> None:
        """Bring the records of `keys` into that order, by one move of the file, if they are all and not in it yet."""
        if list(self.records) == list(keys) or self.records.keys() != set(keys):
            return
        self.records = {key: self.records[key] for key in keys}
        lines = "".join(map(to_line, self.records.values()))
        with writing(self.path, len(lines)):
            write_atomically(self.path, lines)

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def _read(self) -> dict[tuple[int, int], Record]:
        self._stream.seek(0)
        content = self._stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._stream.truncate(len(whole))
        records: dict[tuple[int, int], Record] = {}
        for number, line in enumerate(whole.split(b"\n")[:-1], 1):
            try:
                record = json.loads(line)
                records[record["index"], record["sample"]] = record
            except (ValueError, TypeError, KeyError) as error:
                self._stream.close()
                raise DataError(
                    f"{self.path} line {number}: expected a sample as dgpo eval writes it, found {line[:60]!r}",
                    ADVICE,
                ) from error
        return records
