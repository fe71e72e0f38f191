"""Memory before the first step: what is free, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dgpo_cli.errors import ConfigError
from dgpo_cli.models import load_model
from dgpo_cli.training.memory import available_bytes, check_memory


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


def test_a_limit_on_the_process_counts() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total
    code = (
        "import resource; from dgpo_cli.training.memory import available_bytes\n"
        "resource.setrlimit(resource.RLIMIT_AS, (30 << 30, 30 << 30)); generous = available_bytes()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (10 << 30, 10 << 30)); print(generous, available_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    generous, tight = map(int, done.stdout.split())
    assert tight < 10 << 30
    assert tight <= generous
