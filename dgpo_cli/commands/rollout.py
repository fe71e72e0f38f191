"""`dgpo rollout`: sample completions, grade them, and with a reference show each token's credit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from dgpo_cli.commands.drawn_rollouts import drawn
from dgpo_cli.commands.foreign_rollouts import scores_others, to_be_scored
from dgpo_cli.commands.gating_choice import computable, gatings_of, refuse_unmeasured
from dgpo_cli.commands.rescoring import export, report, rescore, show_tokens
from dgpo_cli.commands.run_report import report_run
from dgpo_cli.commands.scored_records import scored_records
from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.groups import ComputeDtype
from dgpo_cli.config.stored import save as save_config
from dgpo_cli.disk import writing
from dgpo_cli.engines import Served
from dgpo_cli.errors import ConfigError
from dgpo_cli.files import to_json, write_atomically
from dgpo_cli.models.placement import Placement, prepare_device, threads_of
from dgpo_cli.models.policy import load_policy
from dgpo_cli.records.regated import regate
from dgpo_cli.records.stored_rollouts import StoredRollouts, rollouts_at_hand
from dgpo_cli.terminal import phase, put, say


def run(config: RolloutConfig, folder: Path) -> None:
    """Write rollouts.jsonl; on a terminal show the tokens, else print the records as JSON lines.

    Raises:
        DgpoError: as the parts that it loads do; ConfigError for a folder that already holds rollouts, and for gatings
            asked for by name that nothing would be measured for.
    """
    target = folder / "rollouts.jsonl"
    _check(config, folder, target)
    if config.rollouts is not None and Path(config.rollouts).is_dir():
        report_run(config, folder)
        return
    if config.rollouts is not None and not scores_others(config):
        rescore(config, folder)
        return
    refuse_unmeasured(config)
    placement = prepare_device(config.strategy, config.model)
    notes: list[str] = []
    with phase(f"loading the weights of {config.model.path}"):
        policy = load_policy(config.model, placement)
    if config.rollouts is not None:
        rollouts, worth = to_be_scored(config, policy.model)
    else:
        threads = threads_of(config.strategy, config.model)
        served = Served(config.model, placement.computes_in, trained=False, trainers=1, threads=threads)
        rollouts, worth, notes = drawn(config, policy, served)
    with phase(f"scoring {len(rollouts)} completions"):
        records = scored_records(config, policy, placement, rollouts, worth)
    lines = "".join(to_json(record) + "\n" for record in records)
    with writing(target, len(lines)):
        folder.mkdir(parents=True, exist_ok=True)
        save_config(_as_computed(config, placement), folder / "config.yaml")
        write_atomically(target, lines)
    _show(config, rollouts_at_hand(records, str(target)), lines, folder, notes)


def _check(config: RolloutConfig, folder: Path, target: Path) -> None:
    if (folder / "run.json").exists() or (folder / "metrics.jsonl").exists():  # its config.yaml would be replaced
        raise ConfigError(f"{folder} holds a training run", "hydra.run.dir=FOLDER takes another folder")
    if target.exists() and not config.overwrite:
        hint = "hydra.run.dir=FOLDER takes another folder; overwrite=true replaces these rollouts"
        raise ConfigError(f"{target} exists already", hint)


def _show(config: RolloutConfig, stored: StoredRollouts, lines: str, folder: Path, notes: list[str]) -> None:
    """Tokens on a terminal, else the file's lines; then where the file is, and the page, if one is asked for."""
    gated = regate(stored, computable(gatings_of(config, stored), stored))
    if sys.stdout.isatty():
        show_tokens(config, stored, gated)
    else:
        put(lines, end="")
    say(f"rollouts: {stored.source}")
    report(config, stored, gated, folder, notes)
    export(config, stored, gated)


def _as_computed(config: RolloutConfig, placement: Placement) -> RolloutConfig:
    """With the dtype that auto stood for."""
    name = placement.computes_in.name
    return replace(config, strategy=replace(config.strategy, compute_dtype=ComputeDtype[name]))
