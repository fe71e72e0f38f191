"""Quantiles beside values of printed tables."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dgpo_cli.core.quantiles import normal_cdf, normal_quantile, student_quantile


@pytest.mark.parametrize(("freedom", "level", "expected"), [(4, 0.975, 2.776), (9, 0.95, 1.833), (1, 0.75, 1.0)])
def test_students_t(freedom: int, level: float, expected: float) -> None:
    assert student_quantile(freedom, level) == pytest.approx(expected, abs=5e-4)


def test_normal_distribution() -> None:
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-6)
    assert float(normal_cdf(-1.959964)) == pytest.approx(0.025, abs=1e-6)


def test_commands_begin_without_scipy() -> None:
    line = "import sys, dgpo_cli.hydra_app; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0
