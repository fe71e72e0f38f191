"""Credit of stored rollouts by other gatings: refused if it cannot be computed, compared with what is stored."""

from __future__ import annotations

from typing import Any

import pytest
from record_factory import made_up

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.config.groups import Normalizer
from dgpo_cli.errors import DataError
from dgpo_cli.records.regated import as_trained, diagnosed, is_stored_credit, regate, rescored
from dgpo_cli.records.stored_rollouts import StoredRollouts, rollouts_at_hand


def stored_with(**fields: Any) -> StoredRollouts:
    """Two records of three tokens, the second with these values."""
    first, second = made_up(2, 3)
    return rollouts_at_hand([first, second | fields], "step 1")


@pytest.mark.parametrize(
    ("signal", "gating"),
    [("logprobs", "surprisal"), ("entropy", "top_entropy"), ("hellinger", "calibrated"), ("hellinger", "surprisal")],
)
def test_a_gating_is_refused_if_its_signal_has_a_null(signal: str, gating: str) -> None:
    stored = stored_with(**{signal: [0.5, None, 0.5]})
    with pytest.raises(DataError, match=rf"line 2: a null in {signal}, .* gating {gating} needs them all"):
        regate(stored, {gating: gating_option(gating)})
    [plain] = regate(stored, {"uniform": gating_option("uniform")})
    assert plain.credit.weights.tolist() == [[1.0] * 3] * 2


def test_credit_that_overflows_is_refused() -> None:
    gating = gating_option("surprisal")
    gating.normalizer, gating.temperature = Normalizer.none, 1e-300
    with pytest.raises(DataError, match="gating sharp gives credit that is not finite"):
        regate(stored_with(logprobs=[-1e38, 0.0, -1.0]), {"sharp": gating})


def test_rollouts_without_an_advantage_are_left_out_of_the_diagnostics_unless_none_has_one() -> None:
    stored = stored_with(advantage=0.0)
    assert diagnosed(stored) == [0]
    [uniform] = regate(stored, {"uniform": gating_option("uniform")})
    assert uniform.scope == "1 of 2 rollouts, those with A != 0"
    none = rollouts_at_hand([record | {"advantage": 0.0} for record in made_up(2, 3)], "step 1")
    assert diagnosed(none) == [0, 1]


def test_stored_credit_is_known_again_and_other_credit_is_told_apart() -> None:
    stored = stored_with()
    [uniform, sharp] = regate(stored, {name: gating_option(name) for name in ("uniform", "top_entropy")})
    assert is_stored_credit(stored, uniform)  # no record holds any
    written = rollouts_at_hand(rescored(stored, uniform), "step 1")
    assert is_stored_credit(written, uniform)
    assert not is_stored_credit(written, sharp)
    cut = [record | {"credit": [1.0]} for record in written.records]
    assert not is_stored_credit(rollouts_at_hand(cut, "step 1"), uniform)


def test_credit_as_trained_is_that_of_the_records_that_an_update_trained() -> None:
    mean = {"credit": [2.0, 0.5, 0.5], "score": [0.5, 0.25, 0.25], "credit_updates": 2, "advantage": 1.0}
    first, second = made_up(2, 3)
    untrained = second | {"credit": None, "score": None, "credit_updates": 0}
    trained = as_trained(rollouts_at_hand([first | mean, untrained], "step 1"), gating_option("paper"))
    assert trained is not None
    assert trained.scope == "1 of 2 rollouts, those with A != 0"
    assert trained.diagnostics["credit/ess"] == pytest.approx(3.0**2 / (3 * (2.0**2 + 2 * 0.5**2)))
    assert as_trained(rollouts_at_hand([first], "step 1"), gating_option("paper")) is None


def test_credit_written_again_is_that_of_one_gating_and_no_longer_a_mean_over_updates() -> None:
    first, second = made_up(2, 3)
    unscored = second | dict.fromkeys(("logprobs", "entropy", "ref_logprobs", "hellinger", "grad_norm"))
    stored = rollouts_at_hand([first | {"credit_updates": 0, "credit": None, "score": None}, unscored], "step 1")
    [uniform] = regate(stored, {"uniform": gating_option("uniform")})
    again = rescored(stored, uniform)
    assert "credit_updates" not in again[0]
    assert [record["credit"] for record in again] == [[1.0] * 3, None]


@pytest.mark.parametrize("gating", ["proximal", "gmts"])
def test_a_gating_by_the_advantage_is_refused_where_one_is_not_known(gating: str) -> None:
    stored = stored_with(advantage=None)
    with pytest.raises(DataError, match=rf"1 of 2 scored rollouts have no advantage: gating {gating} goes by it"):
        regate(stored, {gating: gating_option(gating)})
    [uniform] = regate(stored_with(advantage=-1.0), {gating: gating_option(gating)})
    assert float(uniform.credit.weights.sum()) == pytest.approx(6.0)


def test_a_file_of_an_earlier_version_lacks_the_gradient_norm() -> None:
    records = [{name: value for name, value in record.items() if name != "grad_norm"} for record in made_up(2, 3)]
    stored = rollouts_at_hand(records, "step 1")
    with pytest.raises(DataError, match="line 1: no grad_norm: gating gmts_exact needs it"):
        regate(stored, {"gmts_exact": gating_option("gmts_exact")})
    assert len(regate(stored, {name: gating_option(name) for name in ("paper", "gmts")})) == 2
