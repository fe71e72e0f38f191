"""`dgpo compare`: runs, sweeps or evaluations side by side, with statistics. Reads files alone."""

from __future__ import annotations

import sys
from pathlib import Path

from dgpo_cli.config.commands import CompareConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.files import write_json
from dgpo_cli.reporting.comparison import compare, comparison_record
from dgpo_cli.reporting.comparison_tables import comparison_tables
from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.tables import show


def run(config: CompareConfig, folder: Path) -> None:
    """Write compare.json into `folder`; tables or JSON on stdout, notes on stderr.

    Raises:
        ConfigError: no runs are given, or they cannot be compared.
        DataError: a folder that holds no run, or a file in it that cannot be read.
    """
    if not config.runs:
        raise ConfigError("runs: none is given", "dgpo compare runs=[FOLDER,FOLDER]")
    runs, notes = find_runs(config.runs)
    pairs, more = compare(runs, alpha=config.compare.alpha, seed=config.seed, force=config.force)
    notes += more
    record = comparison_record(runs, pairs, notes, alpha=config.compare.alpha, seed=config.seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "compare.json", record)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"the folder {folder} cannot be written: {reason}", "hydra.run.dir=FOLDER") from error
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"files: {folder}", file=sys.stderr)
    show(comparison_tables(runs, pairs), record)
