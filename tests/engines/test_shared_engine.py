"""Drawing in two real processes, over gloo, against one alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from several_processes import together

PROGRAM = Path(__file__).with_name("shared_engine_program.py")


@pytest.mark.parametrize(
    "held", ["sharded", *(pytest.param(one, marks=pytest.mark.slow) for one in ("whole", "gathered"))]
)
def test_processes_draw_together_what_one_draws_alone_and_a_signal_to_one_stops_all(
    held: str, random_model: Path, tmp_path: Path
) -> None:
    [record] = together(PROGRAM, 2, tmp_path, str(random_model), held)
    assert record["same"] == [True, True]  # tokens, log-probs and policy_step; the others are told the result too
    assert len(set(record["lengths"])) > 1
    assert record["policy_steps"] == [3] * 5
    assert record["units_at_once"] == 2
    # One unit of 100,000 tokens, which rank 0 draws. The signal goes to rank 1, which waits, if weights are whole.
    assert None not in record["stopped"]
