"""optim.states=8bit: codes, scales and tables are saved and read back, and the moments are near those in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.groups import OptimizerStates
from dgpo_cli.errors import RunError
from dgpo_cli.planning.pieces import moment_bytes
from dgpo_cli.training.eight_bit import MOMENTS_8BIT, decoded
from dgpo_cli.training.optimizer import MOMENTS, Optimizer

FLOAT32 = OptimConfig(lr=0.01, weight_decay=0.1)
CODED = replace(FLOAT32, states=OptimizerStates["8bit"])


def layer() -> torch.nn.Linear:
    """A matrix that is coded, and a bias that is too small for it."""
    torch.manual_seed(0)
    return torch.nn.Linear(100, 64)


def after(settings: OptimConfig, updates: int, optimizer: Optimizer | None = None, first: int = 0) -> Optimizer:
    """The optimizer of a layer, or the one given, after updates whose gradients go by their number."""
    optimizer = optimizer or Optimizer(layer(), settings)
    for number in range(first, first + updates):
        torch.manual_seed(100 + number)
        for weight in optimizer.parameters:
            weight.grad = torch.randn_like(weight) / 100
        assert optimizer.update(0.01).applied
    return optimizer


def test_decoded_moments_are_near_those_in_float32_and_small_tensors_stay_exact() -> None:
    ours, theirs = after(CODED, 3), after(FLOAT32, 3)
    for coded, exact in zip(ours.parameters, theirs.parameters, strict=True):
        for moment, name in zip(MOMENTS_8BIT, MOMENTS, strict=True):
            whole, float32 = decoded(ours.adam.state[coded], moment), theirs.adam.state[exact][name]
            # A code is within some hundredths of its value, or of the largest of its block if it is small.
            bound = 0.02 * float32.abs().max() if coded.ndim == 2 else 1e-6 * float32.abs().max()
            assert (whole - float32).abs().max() <= bound
        assert (coded - exact).abs().max() < 0.02  # of three steps of 0.01 each
    matrix, bias = ours.parameters
    assert ours.adam.state[matrix]["state1"].dtype is torch.uint8
    assert ours.adam.state[bias]["state1"].dtype is torch.float32


def test_moments_take_the_bytes_that_the_plan_counts() -> None:
    optimizer = after(CODED, 1)
    for weight in optimizer.parameters:
        state = optimizer.adam.state[weight]
        kept = [state[name] for name in (*MOMENTS_8BIT, "absmax1", "absmax2") if name in state]
        assert sum(part.numel() * part.element_size() for part in kept) == moment_bytes(weight.numel(), "8bit")
    assert moment_bytes(6400, "8bit") == 2 * (6400 + 4 * 25)  # 25 blocks of 256
    assert moment_bytes(6400, "float32") == 8 * 6400
    assert moment_bytes(4095, "8bit") == 8 * 4095


def test_an_optimizer_that_was_saved_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    saved = after(CODED, 2)
    saved.save(tmp_path)
    copy = layer()
    with torch.no_grad():
        for ours, theirs in zip(copy.parameters(), saved.parameters, strict=True):
            ours.copy_(theirs)
    fresh = Optimizer(copy, CODED)
    fresh.load(tmp_path)
    after(CODED, 2, saved, first=2)
    after(CODED, 2, fresh, first=2)
    for ours, theirs in zip(fresh.parameters, saved.parameters, strict=True):
        assert torch.equal(ours, theirs)
        mine, other = fresh.adam.state[ours], saved.adam.state[theirs]
        assert mine.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(other[name])) for name in mine)
    [file] = tmp_path.glob("optimizer-*.safetensors")
    kept = load_file(file)
    assert kept["weight/state1"].dtype is torch.uint8
    assert kept["weight/qmap2"].shape == (256,)


@pytest.mark.parametrize(("wrote", "reads"), [(CODED, FLOAT32), (FLOAT32, CODED)])
def test_moments_of_the_other_kind_are_not_read(tmp_path: Path, wrote: OptimConfig, reads: OptimConfig) -> None:
    after(wrote, 1).save(tmp_path)
    with pytest.raises(RunError, match=f"another kind than optim.states={reads.states.value}"):
        Optimizer(layer(), reads).load(tmp_path)


def test_adams_direction_is_asked_of_the_moments_that_the_codes_stand_for() -> None:
    directions = []
    for settings in (FLOAT32, CODED):
        optimizer = after(settings, 2)
        torch.manual_seed(7)
        gradients: list[list[Tensor | None]] = [
            [torch.randn(weight.numel()) / 100 for weight in optimizer.parameters] for _ in range(2)
        ]
        directions.append(optimizer.cosines(*gradients))
    (gradient, update), (coded_gradient, coded_update) = directions
    assert gradient == coded_gradient
    assert coded_update == pytest.approx(update, abs=0.02)
    assert coded_update != update
