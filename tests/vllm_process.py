"""A vLLM server of its own for a test that changes its weights: nobody else may be served by it meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared_vllm import START_SECONDS, answers, start_process

from dgpo_cli.engines.vllm.launching import free_port


@contextmanager
def served(model: Path, log: Path, *, dtype: str = "float32", workers: int = 1, longest: int = 128) -> Iterator[str]:
    """The address of a server of a model's folder, which is ended afterwards, by its group."""
    port = free_port()
    with log.open("wb") as out:
        process = start_process(
            port, out, os.getpid(), model=model, dtype=dtype, longest=longest, tensor_parallel=workers
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while not answers(url):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
