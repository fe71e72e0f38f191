"""The learning rate of a step by hand, and what an update reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.groups import Schedule
from dgpo_cli.errors import RunError
from dgpo_cli.training.optimizer import MOMENTS, Optimizer, learning_rate

SETTINGS = OptimConfig(lr=1.0, warmup_steps=4, final_lr_fraction=0.1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # warm-up at steps 1, 2, 4; halfway between 4 and 24; the last step; beyond it
        (Schedule.constant, [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]),
        (Schedule.linear, [0.25, 0.5, 1.0, 0.55, 0.1, 0.1]),
        (Schedule.cosine, [0.25, 0.5, 1.0, 0.55, 0.1, 0.1]),
    ],
)
def test_learning_rate_by_hand(schedule: Schedule, expected: list[float]) -> None:
    settings = replace(SETTINGS, schedule=schedule)
    assert [learning_rate(step, 24, settings) for step in (1, 2, 4, 14, 24, 30)] == pytest.approx(expected)


def test_a_decay_goes_on_from_where_a_resume_found_it() -> None:
    settings = replace(SETTINGS, schedule=Schedule.linear)
    # At step 14 of 24 the rate is 0.55; with the end moved to 34 it falls from there to 0.1 in 20 steps.
    rates = [learning_rate(step, 34, settings, decay_from=(14, 0.55)) for step in (2, 14, 24, 34)]
    assert rates == pytest.approx([0.5, 0.55, 0.325, 0.1])


def test_no_warmup_starts_at_the_peak() -> None:
    assert learning_rate(1, 10, replace(SETTINGS, warmup_steps=0, schedule=Schedule.constant)) == 1.0


def model() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def test_clipping_reports_the_norm_before_it() -> None:
    layer = model()
    optimizer = Optimizer(layer, replace(SETTINGS, grad_clip=0.5))
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    outcome = optimizer.update(0.1)
    assert outcome.applied
    assert outcome.grad_norm == pytest.approx((8 * 4.0) ** 0.5)
    assert outcome.changed_fraction == 1.0


def test_matrices_decay_and_vectors_do_not() -> None:
    layer = model()
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    optimizer = Optimizer(layer, replace(SETTINGS, weight_decay=0.5))
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.update(0.1)
    assert torch.allclose(layer.weight, before[0] * 0.95)
    assert torch.equal(layer.bias, before[1])


def test_a_tiny_step_in_bf16_changes_few_weights() -> None:
    layer = torch.nn.Linear(200, 200).to(torch.bfloat16)
    optimizer = Optimizer(layer, replace(SETTINGS, weight_decay=0.0))
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert optimizer.update(1e-6).changed_fraction < 0.1


def test_a_gradient_with_nan_moves_nothing() -> None:
    layer = model()
    before = layer.weight.detach().clone()
    optimizer = Optimizer(layer, SETTINGS)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    outcome = optimizer.update(0.1)
    assert not outcome.applied
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None


def test_an_offloaded_update_is_the_same_to_rounding_and_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    layers = [model(), model()]
    plain, offloaded = Optimizer(layers[0], SETTINGS), Optimizer(layers[1], SETTINGS, offloaded=True)
    assert offloaded.adam.defaults["fused"]

    def update(optimizer: Optimizer, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        for parameter in optimizer.parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.update(1e-2)

    for number in range(3):
        update(plain, number)
        update(offloaded, number)
    for ours, theirs in zip(offloaded.parameters, plain.parameters, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    offloaded.save(tmp_path)
    again = model()
    again.load_state_dict(layers[1].state_dict())
    resumed = Optimizer(again, SETTINGS, offloaded=True)
    resumed.load(tmp_path)
    for optimizer in (offloaded, resumed):
        update(optimizer, 7)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters, offloaded.parameters, strict=True))


def saved_by_two(folder: Path, *, stop: int = 5) -> Optimizer:
    """A layer of five rows after one update. What AdamW keeps of it lies in two files, three rows and up to `stop`."""
    torch.manual_seed(0)
    optimizer = Optimizer(torch.nn.Linear(3, 5), SETTINGS)
    for parameter in optimizer.parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.update(0.1)
    state = {name: optimizer.adam.state[weight] for name, weight in optimizer.named}
    for rank, (start, end) in enumerate([(0, 3), (3, stop)]):
        tensors = {f"{name}/step": one["step"].reshape(1) for name, one in state.items()}
        for moment in MOMENTS:
            tensors |= {f"{name}/{moment}": one[moment][start:end].contiguous() for name, one in state.items()}
        starts = json.dumps(dict.fromkeys(state, start))
        save_file(tensors, folder / f"optimizer-{rank:05d}-of-00002.safetensors", {"starts": starts})
    return optimizer


def test_one_process_goes_on_from_the_files_of_two(tmp_path: Path) -> None:
    saved = saved_by_two(tmp_path)
    fresh = Optimizer(torch.nn.Linear(3, 5), SETTINGS)
    fresh.load(tmp_path)
    for ours, theirs in zip(fresh.parameters, saved.parameters, strict=True):
        assert fresh.adam.state[ours].keys() == saved.adam.state[theirs].keys()
        for name, value in saved.adam.state[theirs].items():
            assert torch.equal(fresh.adam.state[ours][name], value)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_file_of_the_optimizer_is_no_start_from_zeros(tmp_path: Path, rank: int) -> None:
    """Of a layer whose every row stands in the other file, too: nothing but names can tell that one is missing."""
    saved_by_two(tmp_path, stop=5 if rank else 3)
    file = tmp_path / f"optimizer-{rank:05d}-of-00002.safetensors"
    file.unlink()
    with pytest.raises(RunError, match=f"{file.name} is missing"):
        Optimizer(torch.nn.Linear(3, 3 + 2 * rank), SETTINGS).load(tmp_path)
    for other in tmp_path.iterdir():
        other.unlink()
    with pytest.raises(RunError, match=r"optimizer-00000-of-00001\.safetensors is missing"):
        Optimizer(torch.nn.Linear(3, 5), SETTINGS).load(tmp_path)


def test_missing_rows_of_the_optimizer_are_no_zeros(tmp_path: Path) -> None:
    saved_by_two(tmp_path, stop=4)
    with pytest.raises(RunError, match="expected 5 rows of weight/exp_avg, found 4"):
        Optimizer(torch.nn.Linear(3, 5), SETTINGS).load(tmp_path)
