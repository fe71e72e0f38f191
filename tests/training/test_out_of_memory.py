"""Allocations that really fail: a budget is halved, the work done again, and the numbers are those of that budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from model_factory import save_random_model

from dgpo_cli.allocation import is_out_of_memory
from dgpo_cli.environment import STORE
from dgpo_cli.errors import RunError
from dgpo_cli.training.out_of_memory import MicrobatchBudget

PROGRAM = Path(__file__).with_name("out_of_memory_program.py")
TOO_MUCH = 1 << 50  # bytes


@pytest.mark.parametrize(
    ("size", "gatings"),
    [(1, ["uniform", "top_entropy"]), (2, ["top_entropy"])],
    ids=["alone", "ddp, one of two"],
)
def test_a_step_under_a_limit_on_memory_ends_as_with_a_smaller_budget(
    tmp_path: Path, size: int, gatings: list[str]
) -> None:
    """Weights bit for bit; also where credit needs the whole batch, which is then scored before it is trained on."""
    model = save_random_model(tmp_path / "model", hidden_size=256)
    # Tensors come from the system and go back to it: room that the heap kept would not count against the limit.
    common = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "16384", STORE: str(tmp_path / "store")}
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(model), *gatings],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | common | {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)},
        )
        for rank in range(size)
    ]
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * size
    cases = [json.loads(line) for line in printed[0].splitlines()]
    assert len(cases) == len(gatings)
    for case in cases:
        assert case["budget"] < 4096
        assert case["said"] == [
            "warning: out of memory with micro-batches of 4096 tokens; the step was done again and the run goes on "
            f"with {case['budget']} (optim.tokens_per_microbatch={case['budget']} starts like that)"
        ]
        assert case["same"]


def test_the_budget_is_halved_until_memory_holds_it() -> None:
    said: list[str] = []
    budget, dropped = MicrobatchBudget(4096, said.append), []

    def work() -> int:
        torch.empty(TOO_MUCH if budget.tokens > 300 else budget.tokens)
        return budget.tokens

    fitted = budget.fitted(work, clean_up=lambda: dropped.append(budget.tokens), in_use=lambda: (budget.tokens, 100))
    assert fitted == budget.tokens == budget.halved == 256  # 4096 / 2 / 2 / 2 / 2
    assert dropped == [2048, 1024, 512, 256]
    assert len(said) == 1
    again = MicrobatchBudget(4096, said.append)
    assert again.halved is None
    again.continue_with(budget.halved)
    assert again.tokens == 256


def test_a_budget_far_above_the_work_is_halved_from_what_is_in_use() -> None:
    budget = MicrobatchBudget(1 << 20, lambda text: None)
    sizes = iter([TOO_MUCH, 1])
    budget.fitted(lambda: torch.empty(next(sizes)), clean_up=lambda: None, in_use=lambda: (3000, 100))
    assert budget.tokens == 1500


def test_a_single_sequence_that_does_not_fit_ends_the_run() -> None:
    budget = MicrobatchBudget(100, lambda text: None)
    with pytest.raises(RunError) as caught:
        budget.fitted(lambda: torch.empty(TOO_MUCH), clean_up=lambda: None, in_use=lambda: (100, 100))
    problem = caught.value.problems[0]
    assert problem.message.startswith(
        "out of memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    )
    assert "optim.tokens_per_microbatch" in problem.hint


def test_other_errors_pass() -> None:
    budget = MicrobatchBudget(100, lambda text: None)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        budget.fitted(lambda: torch.ones(2, 3) @ torch.ones(2, 3), clean_up=lambda: None, in_use=lambda: (100, 10))
    assert budget.tokens == 100
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
