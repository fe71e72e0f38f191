"""Memory before the first step: what is free, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dgpo_cli.errors import ConfigError
from dgpo_cli.models.loading import load_model
from dgpo_cli.processes import Processes
from dgpo_cli.training.host_memory import Sharers, available_bytes, check_memory, sharers_of


def test_what_cannot_fit_is_refused_with_its_parts(random_model: Path) -> None:
    """12 bytes a weight for gradient and moments; a layer saves of a position six hidden states (32), queries and the
    attention's output (32), keys and values (16), four MLP widths (64), two norms' and two heads' numbers."""
    model = load_model(str(random_model))
    weights = sum(weight.numel() for weight in model.model.parameters())
    micro_batch = 1000 * 2 * 4 * (6 * 32 + 2 * 32 + 2 * 16 + 4 * 64 + 2 + 2)
    need = 12 * weights + micro_batch
    check_memory(model, positions=1000, available=need)
    with pytest.raises(ConfigError) as caught:
        check_memory(model, positions=1000, available=need - 1)
    for part in ("gradients", "optimizer", "micro-batch", "are free"):
        assert part in caught.value.problems[0].message
    # With one micro-batch in an update, the gradients are there only as its activations go.
    check_memory(model, positions=1000, micro_batches=1, available=8 * weights + micro_batch)
    with pytest.raises(ConfigError):
        check_memory(model, positions=1000, micro_batches=1, available=8 * weights + micro_batch - 1)
    # With checkpointing each layer keeps its input.
    check_memory(model, positions=1000, checkpointing=True, available=12 * weights + 1000 * 2 * 4 * 32)


def test_processes_of_one_machine_share_its_memory(random_model: Path) -> None:
    model = load_model(str(random_model))
    weights = sum(weight.numel() for weight in model.model.parameters())
    micro_batch = 1000 * 2 * 4 * (6 * 32 + 2 * 32 + 2 * 16 + 4 * 64 + 2 + 2)
    need = 12 * weights + micro_batch
    # Each of three has the whole of it.
    check_memory(model, positions=1000, sharers=Sharers(here=3), available=3 * need)
    with pytest.raises(ConfigError) as caught:
        check_memory(model, positions=1000, sharers=Sharers(here=3), available=3 * need - 1)
    assert "each of 3 processes needs" in caught.value.problems[0].message
    assert "a smaller strategy.num_processes" in caught.value.problems[0].hint
    # Of four shards two lie here: a fourth of gradients and moments each, and a micro-batch of their own.
    share = 12 * (weights // 4) + micro_batch
    check_memory(model, positions=1000, sharers=Sharers(here=2, shards=4), available=2 * share)
    with pytest.raises(ConfigError):
        check_memory(model, positions=1000, sharers=Sharers(here=2, shards=4), available=2 * share - 1)


def test_moments_that_a_checkpoint_brought_are_not_asked_for_again(random_model: Path) -> None:
    model = load_model(str(random_model))
    weights = sum(weight.numel() for weight in model.model.parameters())
    check_memory(model, positions=0, moments_to_come=False, available=4 * weights)
    with pytest.raises(ConfigError) as caught:
        check_memory(model, positions=0, moments_to_come=False, available=4 * weights - 1)
    assert "optimizer" not in caught.value.problems[0].message


def test_a_process_alone_has_the_machine_to_itself() -> None:
    assert sharers_of(Processes(), sharded=False) == Sharers(here=1, shards=1)


def test_a_limit_on_the_process_counts() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total
    code = (
        "import resource; from dgpo_cli.training.host_memory import available_bytes\n"
        "resource.setrlimit(resource.RLIMIT_AS, (30 << 30, 30 << 30)); generous = available_bytes()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (10 << 30, 10 << 30)); print(generous, available_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    generous, tight = map(int, done.stdout.split())
    assert tight < 10 << 30
    assert tight <= generous
