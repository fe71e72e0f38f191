"""Units: every sample in exactly one, none larger than a batch, and the same ones whatever k is."""

from __future__ import annotations

import pytest

from dgpo_cli.evaluation.generation_units import generation_units, in_drawing_order
from dgpo_cli.types import Problem, Prompt


@pytest.mark.parametrize("problems", [1, 2, 3, 5, 8, 9, 20])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 8, 64])
def test_units_hold_each_sample_once_fit_a_batch_and_do_not_depend_on_k(problems: int, batch_size: int) -> None:
    for k in (1, 2, 3, 6, 8, 32):
        units = list(generation_units(problems, batch_size, k))
        samples = [(p, s) for unit in units for p in unit.problems for s in unit.samples]
        assert len(samples) == len(set(samples))
        assert {(p, s) for p, s in samples if s < k} == {(p, s) for p in range(problems) for s in range(k)}
        assert all(len(unit.problems) * len(unit.samples) <= batch_size for unit in units)
        assert units == list(generation_units(problems, batch_size, 64))[: len(units)]
        if k.bit_count() == 1:  # nothing is drawn in vain for a power of two
            assert len(samples) == problems * k


def test_units_of_few_problems_fill_the_batch() -> None:
    # 30 problems in batches of 128: blocks of 4 samples, after 1, 1, 2
    sizes = [len(unit.samples) for unit in generation_units(30, 128, 32)]
    assert sizes == [1, 1, 2, 4, 4, 4, 4, 4, 4, 4]


def test_the_drawing_order_is_that_of_the_units() -> None:
    # 3 problems (rows 4, 5 and 6 of a file) in batches of 8: blocks of 1, 1, 2, 2 samples
    prompts = [Prompt(Problem(row, str(row), (), ""), "", ()) for row in (4, 5, 6)]
    units = generation_units(3, 8, 6)
    drawn = [(prompts[p].problem.index, sample) for unit in units for p in unit.problems for sample in unit.samples]
    assert drawn[:9] == [(4, 0), (5, 0), (6, 0), (4, 1), (5, 1), (6, 1), (4, 2), (4, 3), (5, 2)]
    elsewhere = (9, 0)  # a sample of a problem that is no longer asked
    assert in_drawing_order(prompts, 8, [elsewhere, *reversed(drawn)]) == drawn
