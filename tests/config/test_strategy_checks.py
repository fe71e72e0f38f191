"""Settings of a strategy that do not go together are refused before any process is started."""

from __future__ import annotations

import pytest

from dgpo_cli.config.checks import validate
from dgpo_cli.config.compose import compose

SHARED = ["strategy=fsdp", "strategy.sequence_parallel=4"]


@pytest.mark.parametrize(
    ("command", "overrides", "expected"),
    [
        ("train", ["strategy.num_processes=2"], "strategy=single computes in one process"),
        ("train", ["strategy=ddp", "strategy.reference_offload=true"], "strategy.reference_offload"),
        ("train", ["strategy=fsdp", "model.lora.rank=4", "reference.refresh_every=5"], "a second adapter"),
        ("train", ["strategy.name=fsdpp"], "there is no strategy 'fsdpp'"),
        ("train", ["strategy.sequence_parallel=2"], "strategy.sequence_parallel=2 needs 2"),
        ("train", [*SHARED, "strategy.num_processes=6"], "do not make up teams of 4"),
        ("train", [*SHARED, "strategy.packing=false"], "strategy.packing=false makes none"),
        ("train", [*SHARED, "strategy.compile=true"], "strategy.compile"),
        ("train", [*SHARED, "algo.ratio_level=sequence"], "needs the whole sequence in a process"),
        ("train", ["strategy=ddp", "strategy.sequence_parallel=0"], "at least 1"),
        ("eval", ["strategy=ddp"], "is for dgpo train"),
        ("rollout", ["strategy=fsdp"], "is for dgpo train"),
    ],
)
def test_what_does_not_go_together_is_one_problem(command: str, overrides: list[str], expected: str) -> None:
    problems = validate(compose(command, overrides), command)
    assert [expected in problem.message for problem in problems] == [True]
    assert problems[0].hint


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("train", ["strategy=fsdp", "strategy.num_processes=2", "strategy.reference_offload=true"]),
        ("train", ["strategy=ddp", "strategy.num_processes=4", "model.lora.rank=4", "reference.refresh_every=5"]),
        ("train", [*SHARED, "strategy.num_processes=8"]),
        ("train", [*SHARED]),  # as many processes as GPUs
        ("eval", ["strategy=fsdp", "dry_run=true"]),
    ],
)
def test_what_goes_together_passes(command: str, overrides: list[str]) -> None:
    assert validate(compose(command, overrides), command) == []
