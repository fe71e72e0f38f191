"""Weights and advantages as npz, JSONL and Parquet: the same numbers, and those of the records."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from record_factory import made_up

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.records.exported import encoded, exported
from dgpo_cli.records.regated import regate
from dgpo_cli.records.stored_rollouts import rollouts_at_hand


def rows() -> list[dict[str, Any]]:
    """Three rollouts: one as it is, one that was not scored, one without an advantage."""
    records = made_up(3, 5)
    for name in ("logprobs", "entropy", "grad_norm", "ref_logprobs", "hellinger"):
        records[1][name] = None
    records[2]["advantage"] = None
    stored = rollouts_at_hand(records, "step 1")
    [gated] = regate(stored, {"top_entropy": gating_option("top_entropy")})
    return exported(stored, gated)


def test_a_row_holds_weights_and_their_share_of_the_advantage() -> None:
    scored, unscored, ungraded = rows()
    assert (scored["prompt_id"], scored["sample"], len(scored["token_ids"])) == ("problem 0", 0, 5)
    shares = [weight * scored["advantage"] for weight in scored["weights"]]
    assert scored["advantages"] == pytest.approx(shares, rel=1e-6)
    assert any(weight != 1.0 for weight in scored["weights"])
    assert unscored["weights"] == unscored["token_ids"] == []
    assert math.isnan(ungraded["advantage"])
    assert all(math.isnan(value) for value in ungraded["advantages"])


def test_the_three_forms_hold_the_same() -> None:
    expected = rows()
    arrays = np.load(io.BytesIO(encoded(expected, ".npz")))
    lines = [json.loads(line) for line in encoded(expected, ".jsonl").decode().splitlines()]
    table = pyarrow.parquet.read_table(io.BytesIO(encoded(expected, ".parquet"))).to_pylist()
    assert arrays["offsets"].tolist() == [0, 5, 5, 10]
    for number, row in enumerate(expected):
        part = slice(arrays["offsets"][number], arrays["offsets"][number + 1])
        for name in ("token_ids", "weights"):
            assert arrays[name][part].tolist() == row[name] == lines[number][name] == table[number][name]
        assert arrays["prompt_id"][number] == row["prompt_id"] == lines[number]["prompt_id"]
        assert arrays["sample"][number] == row["sample"] == table[number]["sample"]
    assert lines[2]["advantage"] is None
    assert math.isnan(table[2]["advantage"])
    assert np.isnan(arrays["advantages"][5:]).all()
