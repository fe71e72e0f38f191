"""Reading stored rollouts: what is missing, what is not known, and what a batch has in common."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from record_factory import made_up, write_rollouts

from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.records.stored_rollouts import read_stored, rollouts_at_hand, trained_credit

ONLY_OF_ORACLES = {"first_error": "line 1"}  # what other runs do not store


def test_records_at_hand_are_as_they_will_be_read() -> None:
    """A reference that gives a token no probability at all is no damaged file."""
    records = made_up(2, 3)
    records[0]["ref_logprobs"][1] = -math.inf
    records[1]["entropy"][2] = math.nan
    stored = rollouts_at_hand(records, "step 1")
    assert stored.unknown == {"ref_logprobs": "line 1", "entropy": "line 2"}
    assert stored.signals.ref_logprobs is not None
    assert float(stored.signals.ref_logprobs[0, 1]) == -math.inf
    assert math.isnan(float(stored.signals.entropy[1, 2]))


def test_rows_are_as_long_as_their_counted_tokens() -> None:
    long, short, unscored = made_up(3, 3)
    for name in ("logprobs", "entropy", "ref_logprobs", "hellinger", "grad_norm"):
        short[name] = short[name][:1]  # cut by the limit of what counts: three tokens, one counted
        unscored[name] = None
    stored = rollouts_at_hand([long, short, unscored], "step 1")
    assert stored.signals.mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert stored.scored == [0, 1]
    assert stored.signals.entropy[1].tolist() == [short["entropy"][0], 0.0, 0.0]
    assert stored.missing == ONLY_OF_ORACLES  # of a rollout that was not scored nothing is missing


def test_a_signal_that_one_scored_record_lacks_is_missing_from_the_batch() -> None:
    records = made_up(3, 2)
    del records[1]["hellinger"]
    stored = rollouts_at_hand(records, "step 1")
    assert stored.missing == {"hellinger": "line 2"} | ONLY_OF_ORACLES
    assert stored.signals.hellinger is None
    assert stored.signals.ref_logprobs is not None


@pytest.mark.parametrize(("other", "expected"), [(151_936, 151_936), (32_000, None), (None, None)])
def test_a_vocabulary_size_counts_if_all_records_agree_on_it(other: int | None, expected: int | None) -> None:
    records = made_up(2, 2)
    records[1]["vocabulary_size"] = other
    assert rollouts_at_hand(records, "step 1").vocabulary_size == expected


def test_seeds_of_the_control_come_from_the_file_else_from_the_seed_and_the_row(tmp_path: Path) -> None:
    records = made_up(3, 2)
    records[0]["control_seed"] = 0
    del records[1]["control_seed"]
    stored = read_stored(write_rollouts(tmp_path / "rollouts.jsonl", records), seed=5)
    assert stored.control_seeds == [0, derive_seed("control", 5, 1), 2]


def test_some_of_the_rollouts_keep_their_own_signals() -> None:
    records = made_up(4, 3)
    some = rollouts_at_hand(records, "step 1").only([3, 1])
    assert [record["sample"] for record in some.records] == [3, 1]
    assert some.signals.entropy.tolist() == [records[3]["entropy"], records[1]["entropy"]]
    assert some.control_seeds == [3, 1]


def test_credit_that_follows_from_the_signals_is_not_read_as_trained() -> None:
    [record] = made_up(1, 2)
    assert trained_credit(rollouts_at_hand([record | {"credit": [1.5, 0.5], "score": [1.0, 0.5]}], "step 1")) is None
    mean = record | {"credit": [1.5, 0.5], "score": [1.0, 0.5], "credit_updates": 2}
    untrained = record | {"credit": None, "score": None, "credit_updates": 0}
    credit = trained_credit(rollouts_at_hand([mean, untrained], "step 1"))
    assert credit is not None
    assert credit.weights[0].tolist() == [1.5, 0.5]
    assert credit.weights[1].isnan().all()
