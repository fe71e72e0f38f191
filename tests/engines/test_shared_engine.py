"""Drawing in two real processes, over gloo, against one alone."""

from __future__ import annotations

from pathlib import Path

from several_processes import together

PROGRAM = Path(__file__).with_name("shared_engine_program.py")


def test_processes_draw_together_what_one_draws_alone_and_stop_at_the_same_token(
    random_model: Path, tmp_path: Path
) -> None:
    [record] = together(PROGRAM, 2, tmp_path, str(random_model))
    assert record["same"] == [True, True]  # tokens, log-probs and policy_step; the others are told the result too
    assert record["policy_steps"] == [3] * 5
    assert record["units_at_once"] == 2
    assert record["stopped"] == [5, 5]
