"""What this process sets for the libraries that it imports later."""

from __future__ import annotations

from pathlib import Path

import torch

from dgpo_cli.environment import ALLOCATOR, ALLOCATOR_KEYS, prefer_growing_segments


def test_the_allocator_of_a_gpu_grows_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    driver = tmp_path / "nvidiactl"
    variables: dict[str, str] = {}
    prefer_growing_segments(variables, driver=driver)
    assert not variables
    driver.touch()
    prefer_growing_segments(variables, driver=driver)
    assert list(variables.values()) == [ALLOCATOR]
    (name,) = variables
    assert name in ALLOCATOR_KEYS
    for own in ALLOCATOR_KEYS:
        variables = {own: "max_split_size_mb:64"}
        prefer_growing_segments(variables, driver=driver)
        assert variables == {own: "max_split_size_mb:64"}


def test_torch_knows_the_setting() -> None:
    """This torch parses it without a word; a GPU is not needed for that."""
    set_it = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    assert set_it is None or set_it(ALLOCATOR) is None
