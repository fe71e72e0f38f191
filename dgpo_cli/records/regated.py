"""One batch of rollouts under several gatings: credit by each, and how far each moves it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dgpo_cli.algorithm import Algorithm, Credit
from dgpo_cli.config.gating_needs import needed_fields
from dgpo_cli.config.groups import AlgoConfig, GatingConfig
from dgpo_cli.errors import DataError
from dgpo_cli.records.stored_rollouts import StoredRollouts, trained_credit

# What `diagnostics` says of credit, in the order it is shown.
SHOWN = ("credit/ess", "credit/std", "credit/max", "credit/top20", "credit/gini", "credit/noise_gate")
UNIFORM = "gating=uniform needs no signal"
WITHOUT = {
    "entropy": UNIFORM,
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
    rule: str | None = None  # where it is not the gating's formula

    def only(self, rows: list[int]) -> Gated:
        """Some of the rollouts; the diagnostics stay those of the batch."""
        weights, score = self.credit.weights[rows], self.credit.score[rows]
        return replace(self, credit=replace(self.credit, weights=weights, score=score))


def lacking(stored: StoredRollouts, gating: GatingConfig, label: str) -> DataError | None:
    """Why the gating cannot be computed from what is stored, or None."""
    needed = needed_fields(gating)
    if needed and not stored.scored:
        return DataError(
            f"{stored.source}: no rollout in it was scored: gating {label} needs {', '.join(needed)}",
            f"a step where no advantage differs from 0, or a run without token-level credit; {UNIFORM}",
        )
    for name, reason in needed.items():
        if name in stored.lacking:
            return DataError(
                f"{stored.source} {stored.lacking[name]}: no {name}: gating {label} needs it ({reason})",
                WITHOUT.get(name, NO_REFERENCE),
            )
        if name in stored.unknown:
            return DataError(
                f"{stored.source} {stored.unknown[name]}: a null in {name}, a number that was not finite: "
                f"gating {label} needs them all ({reason})",
                UNIFORM,
            )
    if gating.entropy_exponent and stored.vocabulary_size is None:
        return DataError(
            f"{stored.source}: no vocabulary_size, or several: gating {label} divides the entropy by its logarithm",
            "vocabulary_size=N gives the rows of the model's output head",
        )
    return None


def gate(stored: StoredRollouts, gatings: dict[str, GatingConfig]) -> list[Gated]:
    """Credit and diagnostics by each gating, over rollouts with A != 0; over all of them where no A is known.

    Raises:
        DataError: a signal that a gating needs is not stored, or not finite.
    """
    found = []
    for label, gating in gatings.items():
        problem = lacking(stored, gating, label)
        if problem is not None:
            raise problem
        algorithm = Algorithm(AlgoConfig(), gating, max_completion_tokens=1)
        credit = algorithm.credit(
            stored.signals,
            vocabulary_size=stored.vocabulary_size or 2,
            noise_floor=stored.noise_floor or 0.0,
            control_seeds=stored.control_seeds,
        )
        if not bool(torch.isfinite(credit.weights).all()):
            raise DataError(
                f"{stored.source}: gating {label} gives credit that is not finite: its signals are too large", UNIFORM
            )
        found.append(Gated(label, gating, credit, diagnostics(stored, algorithm, credit), _scope(stored)))
    return found


def as_trained(stored: StoredRollouts, gating: GatingConfig) -> Gated | None:
    """The credit that stands in the records, where it does not follow from their signals; NaN in rollouts without any.

    None where credit was computed once, from what is stored.
    """
    credit = trained_credit(stored)
    if credit is None:
        return None
    without = torch.isnan(credit.weights).any(dim=1)
    trained = replace(stored, advantages=torch.where(without, 0.0, stored.advantages))
    algorithm = Algorithm(AlgoConfig(), gating, max_completion_tokens=1)
    found = diagnostics(trained, algorithm, credit)
    spread = {name: found.get(name) for name in SHOWN if name != "credit/noise_gate"}  # how open it was is not stored
    return Gated(TRAINED, gating, credit, spread, _scope(trained), TRAINED_RULE)


def diagnosed(stored: StoredRollouts) -> list[int]:
    """Rows that diagnostics cover: those scored with A != 0, and where there is none all that were scored."""
    return [row for row in stored.scored if float(stored.advantages[row])] or stored.scored


def _scope(stored: StoredRollouts) -> str:
    rows, count = diagnosed(stored), len(stored.records)
    if len(rows) == count:
        return f"{count} rollouts"
    kind = "with A != 0" if rows and float(stored.advantages[rows[0]]) else "that were scored"
    return f"{len(rows)} of {count} rollouts, those {kind}"


def diagnostics(stored: StoredRollouts, algorithm: Algorithm, credit: Credit) -> dict[str, float | None]:
    """As a training step logs them. Values of a signal that is not stored are left out."""
    advantages = stored.advantages
    signed = bool(advantages[diagnosed(stored)].any())
    values = algorithm.diagnostics(stored.signals, credit, advantages if signed else torch.ones_like(advantages))
    if "entropy" in stored.lacking:
        values = {name: value for name, value in values.items() if "entropy" not in name}
    if not signed or "entropy" in stored.lacking:
        values = {name: value for name, value in values.items() if not name.startswith("cells/")}
    return values
