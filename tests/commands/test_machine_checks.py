"""What is refused before servers start on the trainer's GPUs, by numbers as a GPU would give them."""

from __future__ import annotations

import pytest

from dgpo_cli.commands.machine_checks import refuse_share
from dgpo_cli.errors import ConfigError

GB = 10**9


def test_a_share_that_does_not_fit_beside_what_the_trainer_keeps_is_refused() -> None:
    """0.92 of 80 GB are 73.6; 20 are kept, so 53.6 are left: 0.67 of the GPU."""
    refuse_share(0.67, kept=20 * GB, gpu_bytes=80 * GB)
    with pytest.raises(ConfigError, match=r"engine\.gpu_memory_fraction=0\.68: the trainer keeps 18\.6 GiB") as raised:
        refuse_share(0.68, kept=20 * GB, gpu_bytes=80 * GB)
    assert raised.value.problems[0].hint == "engine.gpu_memory_fraction=0.67, or less"


def test_a_trainer_that_fills_the_gpu_leaves_no_share() -> None:
    with pytest.raises(ConfigError) as raised:
        refuse_share(0.1, kept=74 * GB, gpu_bytes=80 * GB)
    assert "engine.colocated=false" in raised.value.problems[0].hint
