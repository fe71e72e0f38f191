"""What a stored record must hold: each thing that is wrong is one line with the file, the line and the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored_rollouts import made_up, write_rollouts

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.errors import DataError
from dgpo_cli.records.regated import gate
from dgpo_cli.records.stored_rollouts import StoredRollouts, read_stored, rollouts_at_hand

NAN, INFINITY = float("nan"), float("inf")


def read(folder: Path, field: str, value: Any) -> StoredRollouts:
    """Two records of three tokens, the second with this value."""
    records = made_up(2, 3)
    records[1][field] = value
    return read_stored(write_rollouts(folder / "rollouts.jsonl", records))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("reward", NAN, "expected a finite number or null, found NaN"),
        ("advantage", -INFINITY, "expected a finite number or null, found -Infinity"),
        ("advantage", 1e39, "expected a finite number or null, found 1e+39"),  # more than float32 holds
        ("reward", 10**400, "expected a finite number or null, found 1000"),
        ("prompt", ["a"], "expected a text or null, found 1 values"),
        ("prompt_id", {"a": 1}, 'expected a text or a number or null, found {"a": 1}'),
        ("sample", [0], "expected an integer or null, found 1 values"),
        ("correct", NAN, "expected true or false or null, found NaN"),
        ("finish_reason", NAN, "expected a text or null, found NaN"),
        ("vocabulary_size", 1, "expected an integer of at least 2 or null, found 1"),
        ("noise_floor", -1e-9, "expected a finite number of at least 0 or null, found -1e-09"),
        ("control_seed", -5, "expected an integer from 0 to below 2^128 or null, found -5"),
        ("control_seed", 2**128, "expected an integer from 0 to below 2^128 or null, found 340"),
        ("token_ids", 5, "expected an integer for each of the 3 tokens, found 5"),
        ("token_ids", [1, 2.5, 3], "expected an integer or null for each of the 3 tokens, found 2.5 for token 1"),
        (
            "entropy",
            [0.1, NAN, 0.1],
            "a finite number or null for each of the 3 counted of 3 tokens, found NaN for tok",
        ),
        ("hellinger", [0.1, 0.1, 1.5], "a number from 0 to 1 or null for each of the 3 counted of 3 tokens, found 1.5"),
        ("ref_logprobs", [-0.1, -0.1], "a finite number for each of the 3 counted of 3 tokens, found 2 values"),
        ("logprobs", [-0.1] * 4, "a finite number for each of the 4 counted of 3 tokens, found 4 values"),
    ],
)
def test_what_is_no_such_value_is_named(tmp_path: Path, field: str, value: Any, said: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, field, value)
    message = error.value.problems[0].message
    assert f"rollouts.jsonl line 2: {field}: " in message
    assert said in message


@pytest.mark.parametrize(
    ("signal", "gating"),
    [("logprobs", "surprisal"), ("entropy", "top_entropy"), ("hellinger", "calibrated"), ("hellinger", "surprisal")],
)
def test_a_gating_is_refused_where_its_signal_has_a_null(tmp_path: Path, signal: str, gating: str) -> None:
    stored = read(tmp_path, signal, [0.5, None, 0.5])
    with pytest.raises(DataError, match=rf"line 2: a null in {signal}, .* gating {gating} needs them all"):
        gate(stored, {gating: gating_option(gating)})
    [plain] = gate(stored, {"uniform": gating_option("uniform")})
    assert plain.credit.weights.tolist() == [[1.0] * 3] * 2


def test_credit_that_overflows_is_refused(tmp_path: Path) -> None:
    stored = read(tmp_path, "logprobs", [-1e38, 0.0, -1.0])
    gating = gating_option("surprisal")
    gating.normalizer, gating.temperature = type(gating.normalizer).none, 1e-300
    with pytest.raises(DataError, match="gating sharp gives credit that is not finite"):
        gate(stored, {"sharp": gating})


def test_records_at_hand_are_as_they_will_be_read(tmp_path: Path) -> None:
    """A reference that gives a token no probability at all is no damaged file."""
    records = made_up(2, 3)
    records[0]["ref_logprobs"][1] = -INFINITY
    records[1]["entropy"][2] = NAN
    stored = rollouts_at_hand(records, "step 1")
    assert stored.unknown == {"ref_logprobs": "line 1", "entropy": "line 2"}
    assert float(stored.signals.ref_logprobs[0, 1]) == -INFINITY  # type: ignore[index]
