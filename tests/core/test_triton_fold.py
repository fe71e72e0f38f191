"""The arithmetic of the GPU's fold, run on the CPU by Triton's interpreter. Its speed is not tested here."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from core.dense_reference import DenseStats, dense_logits, dense_stats
from torch import Tensor

from dgpo_cli.core.token_stats import Head

# The interpreter is chosen when the kernel is defined: a process of its own. It folds the products that it is given.
SCRIPT = """
import sys, torch
from dgpo_cli.core.output_head import LOG2_E, Head, Scratch, head_tiles
from dgpo_cli.core.running_stats import PolicySums, ReferenceSums
from dgpo_cli.core.triton_fold import fold_tiles

cases, results = torch.load(sys.argv[1]), []
for case in cases:
    hidden, ref_hidden, targets = case["hidden"], case["ref_hidden"], case["targets"]
    scratch = Scratch(torch.float32, hidden.device)
    alone, policy = PolicySums.empty(len(hidden), scratch), PolicySums.empty(len(hidden), scratch)
    reference = ReferenceSums.empty(len(hidden), scratch)
    tiles = head_tiles(Head(**case["head"]), 40, scratch, "p"), head_tiles(Head(**case["ref_head"]), 40, scratch, "q")
    unit = LOG2_E / 2 / case["temperature"]
    for tile, ref_tile in zip(*tiles):
        products, ref_products = (hidden @ tile.weight.T).T, (ref_hidden @ ref_tile.weight.T).T
        fold_tiles(products, tile, targets, alone, unit)
        fold_tiles(products, tile, targets, policy, unit, ref_products, ref_tile, reference)
    results.append({
        "alone": alone.logprobs(), "logprobs": policy.logprobs(), "entropy": policy.entropy(),
        "grad_norm": policy.grad_norm(),
        "ref_logprobs": reference.logprobs(), "hellinger": reference.hellinger(policy),
    })
torch.save(results, sys.argv[2])
"""

N, D, V = 5, 16, 131
NAMES = ["plain", "small drift", "identical", "bias and mask", "softcap", "disjoint"]


def cases() -> dict[str, tuple[Tensor, Head, Tensor, Head, Tensor, float]]:
    """name -> hidden, head, ref_hidden, ref_head, targets, temperature."""
    generator = torch.Generator().manual_seed(0)
    hidden, noise = torch.randn(N, D, generator=generator), torch.randn(N, D, generator=generator)
    weight, weight_noise = torch.randn(V, D, generator=generator), torch.randn(V, D, generator=generator)
    targets = torch.tensor([0, 39, 40, 77, 130])  # first and last rows of tiles of 40
    masked, even, odd = torch.randn(V, generator=generator), torch.zeros(V), torch.zeros(V)
    masked[:41], masked[90], even[1::2], odd[::2] = -torch.inf, -torch.inf, -torch.inf, -torch.inf

    def drifted(by: float, **options: Any) -> tuple[Tensor, Head, Tensor, Head]:
        policy, reference = Head(weight, **options), Head(weight + by * weight_noise, **options)
        return hidden, policy, hidden + by * noise, reference

    return {
        "plain": (*drifted(0.3), targets, 0.7),
        "small drift": (*drifted(1e-4), targets, 1.0),
        "identical": (hidden, Head(weight), hidden.clone(), Head(weight.clone()), targets, 1.0),
        "bias and mask": (*drifted(0.1, bias=masked, scale=0.5), targets, 1.0),
        "softcap": (*drifted(0.1, softcap=3.0), targets, 1.3),
        "disjoint": (hidden, Head(weight, even), hidden, Head(weight, odd), targets, 1.0),
    }


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    folder = tmp_path_factory.mktemp("triton")
    payload = [
        {
            "hidden": hidden,
            "head": vars(head),
            "ref_hidden": ref_hidden,
            "ref_head": vars(ref_head),
            "targets": targets,
            "temperature": temperature,
        }
        for hidden, head, ref_hidden, ref_head, targets, temperature in cases().values()
    ]
    torch.save(payload, folder / "cases.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT, str(folder / "cases.pt"), str(folder / "results.pt")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return dict(zip(NAMES, torch.load(folder / "results.pt"), strict=True))


def expected_of(name: str) -> DenseStats:
    hidden, head, ref_hidden, ref_head, targets, temperature = cases()[name]
    return dense_stats(dense_logits(hidden, head), targets, dense_logits(ref_hidden, ref_head), temperature)


@pytest.mark.parametrize("name", NAMES)
def test_kernel_equals_the_dense_reference(name: str, interpreted: dict[str, dict[str, Tensor]]) -> None:
    stats, expected = interpreted[name], expected_of(name)
    for field in ("alone", "logprobs", "entropy", "grad_norm", "ref_logprobs"):
        wanted = getattr(expected, "logprobs" if field == "alone" else field).nan_to_num(neginf=-torch.inf)
        torch.testing.assert_close(stats[field].double(), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(stats["hellinger"].double(), expected.hellinger, atol=2e-6, rtol=0)


def test_kernel_keeps_two_digits_of_a_small_distance(interpreted: dict[str, dict[str, Tensor]]) -> None:
    expected = expected_of("small drift").hellinger
    assert 1e-9 < expected.max() < 1e-6
    torch.testing.assert_close(interpreted["small drift"]["hellinger"].double(), expected, atol=0, rtol=1e-2)


def test_kernel_gives_exactly_zero_for_identical_models(interpreted: dict[str, dict[str, Tensor]]) -> None:
    assert interpreted["identical"]["hellinger"].eq(0.0).all()
