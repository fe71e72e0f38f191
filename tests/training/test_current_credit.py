"""What is kept during a step of updates with credit of their own, in numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from step_factory import batch
from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import microbatch_of
from dgpo_cli.models.scoring import predictive_states
from dgpo_cli.training.current_credit import ReferenceStates, UsedCredit, joined


def test_credit_is_the_mean_over_the_updates_that_a_rollout_was_in() -> None:
    used = UsedCredit((3, 2))
    used.add([0, 1], Credit(torch.full((3, 2), 2.0), torch.full((3, 2), 0.5), 1.0), {"credit/noise_gate": 1.0})
    used.add([0], Credit(torch.full((3, 2), 1.0), torch.zeros(3, 2), 0.5), {"credit/noise_gate": 0.5, "score/max": 3.0})
    assert used.times() == [2, 1, 0]
    assert used.credit().weights.tolist() == [[1.5, 1.5], [2.0, 2.0], [0.0, 0.0]]
    assert used.credit().score.tolist() == [[0.25, 0.25], [0.5, 0.5], [0.0, 0.0]]
    assert used.diagnostics() == {"credit/noise_gate": 0.75, "score/max": 3.0}
    assert used.credit().noise_gate == 0.75


def test_without_an_update_there_is_no_credit() -> None:
    used = UsedCredit((2, 3))
    assert used.times() == [0, 0]
    assert not used.credit().weights.any()
    assert used.diagnostics() == {}


def test_signals_of_parts_join_to_those_of_the_batch() -> None:
    def part(row: int, values: list[float]) -> TokenSignals:
        mask, filled = torch.zeros(2, 2, dtype=torch.bool), torch.zeros(2, 2)
        mask[row, : len(values)] = True
        filled[row, : len(values)] = torch.tensor(values)
        return TokenSignals(mask, -filled, filled, None, None)

    whole = joined([part(0, [1.0, 2.0]), part(1, [3.0])])
    assert whole.mask.tolist() == [[True, True], [True, False]]
    assert whole.entropy.tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert whole.logprobs.tolist() == [[-1.0, -2.0], [-3.0, 0.0]]
    assert whole.hellinger is None


@pytest.mark.parametrize("again", [[0, 1], [1, 0], [1]], ids=str)
def test_states_of_the_reference_are_kept_however_rows_are_cut_again(
    reference: LanguageModel, again: list[int]
) -> None:
    step = batch([1.0, -1.0, 1.0, -1.0])
    states = ReferenceStates(reference)
    passes = 0

    def counted(*_: object) -> None:
        nonlocal passes
        passes += 1

    def micro(rows: list[int]) -> Tensor:
        return states(microbatch_of(step.rollouts, rows, step.lengths, reference.pad_id))

    hook = reference.model.model.register_forward_hook(counted)
    try:
        first = micro([0, 1]).split(step.lengths[:2])
        second = micro(again)
    finally:
        hook.remove()
    assert passes == 1
    assert torch.equal(second, torch.cat([first[row] for row in again]))


def test_a_row_that_is_not_kept_runs(reference: LanguageModel) -> None:
    step = batch([1.0, -1.0, 1.0, -1.0])
    states = ReferenceStates(reference)
    states(microbatch_of(step.rollouts, [0], step.lengths, reference.pad_id))
    both = microbatch_of(step.rollouts, [0, 2], step.lengths, reference.pad_id)
    with torch.no_grad():
        assert torch.equal(states(both), predictive_states(reference, both))
