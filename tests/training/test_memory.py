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
    """12 bytes a weight for gradient and moments; 4 layers' inputs and 2 MLP widths of floats a position and layer."""
    model = load_model(str(random_model))
    weights = sum(weight.numel() for weight in model.model.parameters())
    need = 12 * weights + 1000 * 2 * 4 * (4 * 32 + 2 * 64)
    check_memory(model, positions=1000, available=need)
    with pytest.raises(ConfigError) as caught:
        check_memory(model, positions=1000, available=need - 1)
    for part in ("gradients", "optimizer", "micro-batch", "are free"):
        assert part in caught.value.problems[0].message


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
