"""Whose rollouts a file holds, by the fields of its rows: those of dgpo, or of another trainer.

The standard library alone: the checks ask before anything heavy is imported. `records/foreign.py` reads such files.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

OWN = "tokens"  # every record of dgpo has it
# trainer -> forms of its rows, each by the fields that a row of that form has. The first that fits is taken.
FORMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "verl": (("input", "output"),),
    "prime-rl": (("nodes",), ("traces",), ("example_id", "prompt", "completion")),
    "TRL": (("step", "prompt", "completion"),),
}
EXPORTED = (".npz", ".jsonl", ".parquet")  # the endings of export=
LOOKED_FOR = "; ".join(
    f"{trainer} ({' or '.join('+'.join(form) for form in forms)})" for trainer, forms in FORMS.items()
)


def trainer_of(fields: Collection[str]) -> str | None:
    """The trainer that writes rows with these fields; None if no known one does, or dgpo itself."""
    if OWN in fields:
        return None
    found = (trainer for trainer, forms in FORMS.items() for form in forms if set(form) <= set(fields))
    return next(found, None)


def is_of_others(path: str | None) -> bool:
    """Whether another trainer wrote the file, by its first row. A Parquet file is: dgpo writes none of rollouts."""
    if path is None:
        return False
    file = Path(path)
    if file.suffix.lower() == ".parquet":
        return file.is_file()
    try:
        with file.open(encoding="utf-8-sig") as stream:
            first = next((line for line in stream if line.strip()), "")
        row = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and trainer_of(row) is not None


def is_run_with_rollouts(path: str) -> bool:
    """Whether it is the folder of a training run that has stored rollouts."""
    return Path(path).is_dir() and any((Path(path) / "rollouts").glob("step_*.jsonl"))


def names_model(typed: Collection[str]) -> bool:
    """Whether the command line says which model it means: model=NAME, model.path=FOLDER."""
    return "model" in typed or "model.path" in typed
