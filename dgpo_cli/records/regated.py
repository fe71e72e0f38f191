"""Credit of stored rollouts by one gating or several, beside that which trained, and how far each moves it from 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from dgpo_cli.algorithm import Algorithm, Credit
from dgpo_cli.config.gating_needs import needed_fields, needs_advantages
from dgpo_cli.config.groups import AlgoConfig, GatingConfig
from dgpo_cli.errors import DataError
from dgpo_cli.records.prompt_groups import group_accuracy
from dgpo_cli.records.record_checks import is_number
from dgpo_cli.records.stored_rollouts import StoredRollouts, trained_credit

# What `diagnostics` says of credit, in the order it is shown.
SHOWN = ("credit/ess", "credit/std", "credit/max", "credit/top20", "credit/gini", "credit/noise_gate")
UNIFORM = "gating=uniform needs no signal"
WITHOUT = {
    "entropy": UNIFORM,
    "grad_norm": f"rollouts of this version hold it: sample again, dgpo rollout; {UNIFORM}",
    "first_error": f"an oracle reads the answer: sample with it, data=digit_chain gating=oracle_first_error; {UNIFORM}",
    "logprobs": f"score the rollouts: dgpo rollout, or dgpo train rollout.save=all; {UNIFORM}",
}
TRAINED = "as trained"
TRAINED_RULE = "as stored: the mean over a rollout's updates, each by the policy as it was then (score_policy=current)"
NO_REFERENCE = "sample with a reference: dgpo rollout reference=...; gating=uniform and gating=top_entropy need none"


@dataclass(frozen=True)
class Gated:
    """A batch's credit by one gating."""

    label: str
    gating: GatingConfig
    credit: Credit
    diagnostics: dict[str, float | None]
    scope: str  # what the diagnostics cover: "8 of 16 rollouts, those with A != 0"
    rule: str | None = None  # how it came about, if not by the gating's formula

    def only(self, rows: list[int]) -> Gated:
        """Some of the rollouts, to be shown; the diagnostics stay those of the batch."""
        weights, score = self.credit.weights[rows], self.credit.score[rows]
        return replace(self, credit=replace(self.credit, weights=weights, score=score))


def lacking(stored: StoredRollouts, gating: GatingConfig, label: str) -> DataError | None:
    """Why the gating cannot be computed from what is stored, or None."""
    needed = needed_fields(gating)
    if needed and not stored.scored:
        return DataError(
            f"{stored.source}: no rollout in it was scored: gating {label} needs {', '.join(needed)}",
            "a step where no advantage differs from 0, a run without token-level credit, or another trainer's file "
            f"that no model scored (model.path=MODEL); {UNIFORM}",
        )
    for name, reason in needed.items():
        if name in stored.missing:
            return DataError(
                f"{stored.source} {stored.missing[name]}: no {name}: gating {label} needs it ({reason})",
                WITHOUT.get(name, NO_REFERENCE),
            )
        if name in stored.unknown:
            return DataError(
                f"{stored.source} {stored.unknown[name]}: a null in {name}, a number that was not finite: "
                f"gating {label} needs them all ({reason})",
                UNIFORM,
            )
    unknown = [record for record in map(stored.records.__getitem__, stored.scored) if record.get("advantage") is None]
    if needs_advantages(gating) and unknown:
        return DataError(
            f"{stored.source}: {len(unknown)} of {len(stored.scored)} scored rollouts have no advantage: gating "
            f"{label} goes by it (gating.sign, gating.times_advantage)",
            f"grade the rollouts in groups: rollout.group_size=8; {UNIFORM}",
        )
    if gating.entropy_exponent and stored.vocabulary_size is None:
        return DataError(
            f"{stored.source}: no vocabulary_size, or several: gating {label} divides the entropy by its logarithm",
            "vocabulary_size=N gives the rows of the model's output head",
        )
    return None


def regate(stored: StoredRollouts, gatings: dict[str, GatingConfig]) -> list[Gated]:
    """Credit and diagnostics by each gating. Credit is computed from the whole batch.

    Raises:
        DataError: a signal that a gating needs is not stored, or not finite; or credit overflows.
    """
    return [_by(stored, label, gating) for label, gating in gatings.items()]


def _by(stored: StoredRollouts, label: str, gating: GatingConfig) -> Gated:
    problem = lacking(stored, gating, label)
    if problem is not None:
        raise problem
    algorithm = _algorithm(gating)
    credit = algorithm.credit(
        stored.signals,
        advantages=stored.advantages,
        vocabulary_size=stored.vocabulary_size or 2,  # `lacking` refuses a gating that would read it
        noise_floor=stored.noise_floor or 0.0,
        control_seeds=stored.control_seeds,
    )
    if not bool(torch.isfinite(credit.weights).all()):
        raise DataError(
            f"{stored.source}: gating {label} gives credit that is not finite: its signals are too large", UNIFORM
        )
    return Gated(label, gating, credit, diagnostics(stored, algorithm, credit), _scope(stored))


def as_trained(stored: StoredRollouts, gating: GatingConfig) -> Gated | None:
    """The credit that the records hold, if it is a mean over updates and no gating of their signals gives it.

    Rollouts that no update trained have NaN. None if credit was computed once, from what is stored.
    """
    credit = trained_credit(stored)
    if credit is None:
        return None
    without = torch.isnan(credit.weights).any(dim=1)
    trained = replace(stored, advantages=torch.where(without, 0.0, stored.advantages))
    found = diagnostics(trained, _algorithm(gating), credit)
    spread = {name: found.get(name) for name in SHOWN if name != "credit/noise_gate"}  # how open it was is not stored
    return Gated(TRAINED, gating, credit, spread, _scope(trained), TRAINED_RULE)


def rescored(stored: StoredRollouts, gated: Gated) -> list[dict[str, Any]]:
    """The records with `score` and `credit` by this gating.

    They lose `credit_updates`: this credit is computed once, from the stored signals.
    """
    records = []
    for row, record in enumerate(stored.records):
        length = int(stored.signals.mask[row].sum())
        columns = {"score": gated.credit.score, "credit": gated.credit.weights}
        made = {name: values[row, :length].tolist() if length else None for name, values in columns.items()}
        records.append({name: value for name, value in record.items() if name != "credit_updates"} | made)
    return records


def is_stored_credit(stored: StoredRollouts, gated: Gated) -> bool:
    """Whether the credit that the records hold is this one. Records without credit say nothing against it."""
    for row in stored.scored:
        before, now = stored.records[row].get("credit"), gated.credit.weights[row, stored.signals.mask[row]].tolist()
        if before is not None and not _is_close(before, now):
            return False
    return True


def _is_close(before: Any, now: list[float]) -> bool:
    if not isinstance(before, list) or len(before) != len(now):
        return False
    return all(is_number(old) and math.isclose(old, new, rel_tol=1e-4) for old, new in zip(before, now, strict=True))


def diagnosed(stored: StoredRollouts) -> list[int]:
    """The rows that diagnostics cover: those scored with A != 0; if there are none, all that were scored."""
    return [row for row in stored.scored if float(stored.advantages[row])] or stored.scored


def _scope(stored: StoredRollouts) -> str:
    rows, count = diagnosed(stored), len(stored.records)
    if len(rows) == count:
        return f"{count} rollouts"
    kind = "with A != 0" if rows and float(stored.advantages[rows[0]]) else "that were scored"
    return f"{len(rows)} of {count} rollouts, those {kind}"


def diagnostics(stored: StoredRollouts, algorithm: Algorithm, credit: Credit) -> dict[str, float | None]:
    """The numbers that a training step logs, without those of a signal that is not stored.

    If no advantage is known, every rollout counts as one with A = 1, and the cells by sign of A are left out.
    """
    advantages = stored.advantages
    signed = bool(advantages[diagnosed(stored)].any())
    values = algorithm.diagnostics(
        stored.signals, credit, advantages if signed else torch.ones_like(advantages), group_accuracy(stored.records)
    )
    if "entropy" in stored.missing:
        values = {name: value for name, value in values.items() if "entropy" not in name}
    if not signed or "entropy" in stored.missing:
        values = {name: value for name, value in values.items() if not name.startswith("cells/")}
    return values


def _algorithm(gating: GatingConfig) -> Algorithm:
    """Credit depends on the gating alone: rewards and loss, which the other settings are for, are never asked for."""
    return Algorithm(AlgoConfig(), gating, max_completion_tokens=1)
