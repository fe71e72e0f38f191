"""`dgpo rollout rollouts=FILE`: score and credit again from what a file holds. No model is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dgpo_cli.commands.foreign_rollouts import unscored
from dgpo_cli.commands.gating_choice import gating_of_stored, gatings_of, warn_of_other_credit
from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.gatings import hydra_config_dirs, with_controls
from dgpo_cli.config.rollout_files import is_of_others
from dgpo_cli.config.stored import save as save_config
from dgpo_cli.disk import writing
from dgpo_cli.errors import DataError
from dgpo_cli.files import to_json, write_atomically
from dgpo_cli.records.exported import encoded, exported
from dgpo_cli.records.regated import SHOWN, Gated, as_trained, diagnosed, regate, rescored
from dgpo_cli.records.stored_rollouts import StoredRollouts, read_stored
from dgpo_cli.reporting.clean_console import CleanConsole
from dgpo_cli.reporting.credit_page import PageFacts, credit_page
from dgpo_cli.reporting.tables import make_table, show
from dgpo_cli.reporting.token_view import print_rollouts
from dgpo_cli.terminal import say


def rescore(config: RolloutConfig, folder: Path) -> None:
    """Write the records with score and credit by gating=, or the file's own gating; show how far each moves credit.

    The diagnostics of each gating are a table, or JSON in a pipe.

    Raises:
        DataError: records that cannot be used, or a signal that a gating needs and the file does not hold.
    """
    others = is_of_others(config.rollouts)
    stored = unscored(config) if others else read_stored(Path(str(config.rollouts)), seed=config.seed)
    if config.vocabulary_size is not None:
        stored = stored.with_vocabulary(config.vocabulary_size)
    config = replace(config, gating=gating_of_stored(config, stored))
    gated = regate(stored, gatings_of(config, stored))
    trained = as_trained(stored, config.gating)
    warn_of_other_credit(stored, gated[0], trained)
    gates = [item.label for item in gated if item.gating.noise_gate]
    if gates and stored.noise_floor is None:
        say(f"note: {', '.join(gates)}: the noise gate stands open, as no noise floor was measured with these rollouts")
    target = folder / "rollouts.jsonl"
    lines = "".join(to_json(record) + "\n" for record in rescored(stored, gated[0]))
    gated += [] if trained is None else [trained]
    summary = {
        "rollouts": stored.source,
        "n_rollouts": len(stored.records),
        "n_scored": len(stored.scored),
        "n_diagnosed": len(diagnosed(stored)),
        "gatings": {item.label: item.diagnostics for item in gated},
    }
    with writing(target, len(lines)):
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, folder / "config.yaml")
        write_atomically(target, lines)
        write_atomically(folder / "credit.json", to_json(summary, indent=2) + "\n")
    if sys.stdout.isatty():
        show_tokens(config, stored, gated)
    else:
        show([], summary)
    say(f"rollouts: {target}")
    report(config, stored, gated, folder)
    export(config, stored, gated)


def show_tokens(config: RolloutConfig, stored: StoredRollouts, gated: list[Gated]) -> None:
    """The first prompts on a terminal, shaded, then how far each gating moves credit."""
    console = CleanConsole(soft_wrap=True)
    print_rollouts(stored, gated, console, shade_by=config.shade.name, prompts=config.limit)
    if gated:
        columns = ["gating", *(name.removeprefix("credit/") for name in SHOWN)]
        rows = [[item.label, *(_number(item.diagnostics.get(name)) for name in SHOWN)] for item in gated]
        console.print(make_table(columns, rows, title=f"credit over {gated[0].scope} (ess 1 is uniform)"))


def report(
    config: RolloutConfig, stored: StoredRollouts, gated: list[Gated], folder: Path, notes: Sequence[str] = ()
) -> None:
    """Write report.html, if it was asked for. `notes`: what it says at its top."""
    if config.report:
        path = folder / "report.html"
        page = credit_page(stored, _with_controls(stored, gated), shade=config.shade.name, facts=PageFacts(notes))
        with writing(path, len(page)):
            write_atomically(path, page)
        say(f"report: {path}")


def _with_controls(stored: StoredRollouts, gated: list[Gated]) -> list[Gated]:
    """The page has the controls of the first gating beside it, too."""
    known = {item.label: item.gating for item in gated if item.rule is None}
    return gated + regate(
        stored, {name: one for name, one in with_controls(known, hydra_config_dirs()).items() if name not in known}
    )


def export(config: RolloutConfig, stored: StoredRollouts, gated: list[Gated]) -> None:
    """Write the weights by gating= to export=, if it was asked for.

    Raises:
        DataError: no credit by that gating could be computed.
    """
    if config.export is None:
        return
    chosen = next((item for item in gated if item.gating == config.gating), None)
    if chosen is None:
        raise DataError(f"export: {stored.source} has no credit by gating={config.gating.name}", "gating=uniform")
    path = Path(config.export)
    rows = exported(stored, chosen)
    content = encoded(rows, path.suffix.lower())
    with writing(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    say(f"export: {path}: the weights of {sum(bool(row['weights']) for row in rows)} rollouts by {chosen.label}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 0.99 or abs(value) > 1.01 else f"{value:.6f}"
