"""Which stored step of a run has right answers beside wrong ones: where to look if its model now has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dgpo_cli.command_lines import command
from dgpo_cli.records.prompt_groups import is_mixed, rows_by_group
from dgpo_cli.reporting.run_page import stored_steps

MOST_READ = 12  # stored steps, the newest first


def where_mixed(model_path: str | None) -> str | None:
    """A sentence that names the newest stored step with mixed groups of the run that the model is of, or says that none
    has any; None if the model is of no run with stored steps."""
    files = _of_run(model_path)
    for step, file in sorted(files.items(), reverse=True)[:MOST_READ]:
        records = _records(file)
        mixed = sum(is_mixed([records[row] for row in rows]) for rows in rows_by_group(records))
        if mixed:
            which = f"{mixed} of its groups" if mixed > 1 else "one of its groups"
            look = f"{command('rollout', rollouts=file)} report=true"
            return f"In step {step} of its training {which} had both: {look}"
    return f"None of the {len(files)} stored steps of its training has any, either." if files else None


def _of_run(model_path: str | None) -> dict[int, Path]:
    """The stored steps of the run whose folder the model lies in."""
    folder = Path(model_path or "")
    for place in (folder, *list(folder.parents)[:3]):
        files = stored_steps(place)
        if files:
            return files
    return {}


def _records(file: Path) -> list[dict[str, Any]]:
    """Rows that can be read; a file that cannot be is none that helps."""
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict)]
