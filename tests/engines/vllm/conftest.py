"""The vLLM server of the test run, and the lock of those who change its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_vllm import locked, shared_server


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def vllm_url(run_folder: Path) -> Iterator[str]:
    """The address of the run's server, for this test alone as long as it runs."""
    url = shared_server(run_folder)
    with locked(run_folder / "vllm.used"):
        yield url
