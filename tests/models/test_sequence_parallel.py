"""Sequences that several processes share, against whole ones: real processes over gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
from rollout_factory import LENGTHS, uneven_rollouts
from several_processes import together

from dgpo_cli.models.microbatch import Held, make_microbatches, part_of, shares
from dgpo_cli.models.sequence_parallel import Team

PROGRAM = Path(__file__).with_name("sequence_parallel_program.py")
LAYERS, HEADS, HEAD_DIM, DOUBLE = 2, 4, 8, 8  # of the program's models; bytes of a number


@pytest.mark.parametrize(
    ("size", "team"), [(2, 2), pytest.param(4, 2, marks=pytest.mark.slow), pytest.param(4, 4, marks=pytest.mark.slow)]
)
def test_parts_have_the_states_gradients_and_signals_of_whole_sequences(tmp_path: Path, size: int, team: int) -> None:
    """In float64, where what is left of 1e-6 would be a token that does not see all of its sequence."""
    *records, signals = together(PROGRAM, size, tmp_path, str(team))
    assert len(records) == 5
    for record in records:
        assert record["states"] < 1e-12, record
        assert record["gradient"] < 1e-12, record
        passes = 3 if record["checkpointing"] else 2  # forward, backward, and the forward that is computed again
        heads = 2 * HEADS + 2 * max(record["of_keys"], team)
        sent = LAYERS * passes * heads * HEAD_DIM * DOUBLE * record["positions"]
        assert record["exchanged"] == sent * (team - 1) * size // team, record
    assert records[-1]["empty_parts"]
    assert signals["signals"] < 1e-6


def test_a_part_holds_the_tokens_that_are_predicted_in_it() -> None:
    """Row 4 has 8 + 3 tokens at the positions 0 to 10, row 2 has 6 + 9 at 11 to 25: 26 of them, 7 to a process of 4."""
    [batch] = make_microbatches(
        uneven_rollouts(), [2, 4], LENGTHS, tokens=7, pad_id=0, processes=4, packed=True, team=4
    )
    assert (batch.rows, batch.packed) == ([2, 4], [15, 11])
    parts = [part_of(batch, Team(place, 4)) for place in range(4)]
    assert [part.input_ids.shape[1] for part in parts] == [7, 7, 7, 7]
    assert [part.padding for part in parts] == [0, 0, 0, 2]
    assert {tuple(part.packed or []) for part in parts} == {(15, 11, 2)}
    # Row 2's nine are predicted at 5 to 13, row 4's three at 22 to 24.
    assert [part.part for part in parts] == [
        [Held(2, 0, 2), Held(4, 0, 0)],
        [Held(2, 2, 9), Held(4, 0, 0)],
        [Held(2, 9, 9), Held(4, 0, 0)],
        [Held(2, 9, 9), Held(4, 0, 3)],
    ]
    assert [part.at[1].tolist() for part in parts] == [[5, 6], [0, 1, 2, 3, 4, 5, 6], [], [1, 2, 3]]
    assert [int(part.mask.sum()) for part in parts] == [len(part.targets) for part in parts]
    assert shares([batch], 4, 4) == [[Held(2, 0, 2)], [Held(2, 2, 9)], [], [Held(4, 0, 3)]]
