"""`dgpo compare`: runs, sweeps or evaluations side by side, with statistics, curves and a page. Reads files alone."""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.config.commands import CompareConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.sample_file import write_json
from dgpo_cli.files import write_atomically
from dgpo_cli.reporting.comparison import compare, comparison_record
from dgpo_cli.reporting.comparison_page import comparison_page, pair_names
from dgpo_cli.reporting.comparison_tables import comparison_tables
from dgpo_cli.reporting.learning_curves import learning_curves
from dgpo_cli.reporting.plots import curves_png, differences_png
from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.sides import sides
from dgpo_cli.reporting.tables import show
from dgpo_cli.terminal import say


def run(config: CompareConfig, folder: Path) -> None:
    """Write compare.json, compare.html and the pictures into `folder`; tables or JSON on stdout, notes on stderr.

    Raises:
        ConfigError: no runs are given, or they cannot be compared.
        DataError: a folder that holds no run, or a file in it that cannot be read.
    """
    if not config.runs:
        raise ConfigError("runs: none is given", "dgpo compare runs=[FOLDER,FOLDER]")
    alpha = config.compare.alpha
    runs, notes = find_runs(config.runs)
    pairs, more = compare(runs, alpha=alpha, seed=config.seed, force=config.force)
    notes += more
    record = comparison_record(runs, pairs, notes, alpha=alpha, seed=config.seed)
    groups = sides(runs)
    curves = learning_curves(groups)
    pictures = {"curves.png": curves_png(curves)} if curves else {}
    if pairs:
        pictures["differences.png"] = differences_png(pairs, pair_names(pairs))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "compare.json", record)
        write_atomically(folder / "compare.html", comparison_page(runs, groups, pairs, curves, notes, alpha=alpha))
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"the folder {folder} cannot be written: {reason}", "hydra.run.dir=FOLDER") from error
    for note in notes:
        say(f"note: {note}")
    say(f"files: {folder} ({', '.join(['compare.html', 'compare.json', *pictures])})")
    show(comparison_tables(runs, pairs, alpha=alpha), record)
