"""`dgpo compare`: runs, sweeps or evaluations side by side, with statistics, curves and a page. Reads files alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dgpo_cli
from dgpo_cli.config.commands import CompareConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.sample_file import write_json
from dgpo_cli.files import write_atomically
from dgpo_cli.reporting.bands import judge, read_band
from dgpo_cli.reporting.comparison import Pair, compare, comparison_record
from dgpo_cli.reporting.comparison_page import comparison_page, pair_names
from dgpo_cli.reporting.comparison_tables import comparison_tables
from dgpo_cli.reporting.learning_curves import learning_curves
from dgpo_cli.reporting.plots import curves_png, differences_png
from dgpo_cli.reporting.run_figures import figure_tables, run_figures
from dgpo_cli.reporting.run_files import Json
from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.sides import sides
from dgpo_cli.reporting.tables import show
from dgpo_cli.reporting.word_table import WordTable
from dgpo_cli.terminal import say


def run(config: CompareConfig, folder: Path) -> None:
    """As `write_comparison`, with tables or JSON on stdout."""
    _, tables, record = write_comparison(config, folder)
    show(tables, record)


def write_comparison(config: CompareConfig, folder: Path) -> tuple[list[Pair], list[WordTable], Json]:
    """Write compare.json, compare.html and the pictures into `folder`; notes on stderr. Pairs, tables, compare.json.

    Raises:
        ConfigError: no runs are given, or they cannot be compared.
        DataError: a folder that holds no run, or a file in it, or the band, that cannot be read.
    """
    if not config.runs:
        raise ConfigError("runs: none is given", "dgpo compare runs=[FOLDER,FOLDER]")
    alpha = config.compare.alpha
    band = None if config.band is None else read_band(config.band)
    runs, notes = find_runs(config.runs)
    judged = [] if band is None else judge(band, runs, force=config.force)
    pairs, more = compare(runs, alpha=alpha, seed=config.seed, force=config.force)
    notes += more + [one.sentence for one in judged]
    groups = sides(runs)
    figures = run_figures(groups)
    made = datetime.now(UTC)
    stamp = {"made": made.isoformat(timespec="seconds"), "version": dgpo_cli.__version__}
    more_records = {**stamp, "figures": figures, "band": [one.as_record() for one in judged]}
    record = comparison_record(runs, pairs, notes, alpha=alpha, seed=config.seed) | more_records
    curves = learning_curves(groups)
    pictures = {"curves.png": curves_png(curves)} if curves else {}
    if pairs:
        pictures["differences.png"] = differences_png(pairs, pair_names(pairs))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "compare.json", record)
        page = comparison_page(
            runs, groups, pairs, curves, figures, notes, alpha=alpha, made=f"{made:%Y-%m-%d %H:%M} UTC"
        )
        write_atomically(folder / "compare.html", page)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"the folder {folder} cannot be written: {reason}", "hydra.run.dir=FOLDER") from error
    for note in notes:
        say(f"note: {note}")
    say(f"files: {folder} ({', '.join(['compare.html', 'compare.json', *pictures])})")
    return pairs, [*comparison_tables(runs, pairs, alpha=alpha), *figure_tables(figures)], record
