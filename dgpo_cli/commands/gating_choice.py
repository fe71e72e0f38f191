"""Which gatings `dgpo rollout` computes: of rollouts that are stored, and of those that it samples."""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.gating_needs import needed_from_reference
from dgpo_cli.config.gatings import (
    BESIDE,
    CHOOSES,
    gating_of_file,
    gating_option,
    gatings_by_label,
    hydra_config_dirs,
    label,
    typed_keys,
)
from dgpo_cli.config.groups import GatingConfig
from dgpo_cli.errors import ConfigError, Problem
from dgpo_cli.records.regated import Gated, is_stored_credit, lacking
from dgpo_cli.records.stored_rollouts import StoredRollouts
from dgpo_cli.terminal import say

REFERENCE_HINT = "reference=NAME or reference.path=FOLDER; gating=uniform and gating=top_entropy need none"


def gating_of_stored(config: RolloutConfig, stored: StoredRollouts) -> GatingConfig:
    """The typed one; else the file's own (see `config.finish`), or uniform if that lacks a signal. It says which."""
    gating = config.gating
    if any(key in CHOOSES for key in typed_keys()):
        return gating
    name = label(gating, hydra_config_dirs())
    found = gating_of_file(Path(str(config.rollouts)))
    problem = lacking(stored, gating, name)
    if problem is not None:
        gating, why = gating_option("uniform"), f"uniform, for {problem}"
    elif found is not None:
        why = f"{name}, that of {found[1]}"
    else:
        why = f"{name}; no config.yaml says by which {stored.source} was scored"
    say(f"gating: {why}")
    return gating


def warn_of_other_credit(stored: StoredRollouts, gated: Gated, trained: Gated | None) -> None:
    """Say so if a gating that nobody typed gives other credit than the file holds.

    `trained`: the file's credit if no gating over its signals gives it, whatever was typed.
    """
    if trained is not None:
        say(
            f"warning: {stored.source}: the credit stored in it is the mean over a step's updates, each by the policy "
            f"as it was then (gating.score_policy=current), and is shown as '{trained.label}'; gating {gated.label} is "
            "computed from the stored signals, those of the policy that sampled, and is what is written now",
        )
        return
    if any(key.partition(".")[0] in CHOOSES for key in typed_keys()):
        return
    if not is_stored_credit(stored, gated):
        say(
            f"warning: {stored.source}: the credit stored in it is not that of gating {gated.label} over this file "
            "(another gating, or a part of a batch); what is shown and written now is"
        )


def gatings_of(config: RolloutConfig, stored: StoredRollouts) -> dict[str, GatingConfig]:
    """gating= first, then `gatings`; if these are not named, the usual ones whose signals are stored."""
    dirs = hydra_config_dirs()
    beside = config.gatings
    if beside is None:
        beside = [name for name in BESIDE if lacking(stored, gating_option(name), name) is None]
    return gatings_by_label(config.gating, beside, dirs)


def refuse_unmeasured(config: RolloutConfig) -> None:
    """Before anything is loaded: a gating that was asked for by name and that no reference will be there for.

    The gating that an algo brings is not asked for: `computable` says that there is no credit by it.

    Raises:
        ConfigError: naming each of them.
    """
    if config.reference.name != "none":
        return
    dirs = hydra_config_dirs()
    asked = gatings_by_label(config.gating, config.gatings or [], dirs)
    own = label(config.gating, dirs)
    if "gating" not in typed_keys() and own not in (config.gatings or []):
        del asked[own]
    problems = tuple(
        Problem(f"gating {name} needs {unmeasured}, and reference=none: nothing would be measured", REFERENCE_HINT)
        for name, gating in asked.items()
        if (unmeasured := needs_of_reference(gating))
    )
    if problems:
        raise ConfigError("", problems=problems)


def computable(gatings: dict[str, GatingConfig], stored: StoredRollouts) -> dict[str, GatingConfig]:
    """Those whose signals are there; a line for each other one."""
    found = {}
    for name, gating in gatings.items():
        problem = lacking(stored, gating, name)
        if problem is None:
            found[name] = gating
        else:
            say(f"note: no credit by {name}: {problem}")
    return found


def needs_of_reference(gating: GatingConfig) -> str:
    """The signals it needs a reference for, each with the setting that needs it; empty if it needs none."""
    return ", ".join(f"{name} ({reason})" for name, reason in needed_from_reference(gating).items())
