"""A program of a test as several processes that meet and work together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dgpo_cli.environment import STORE


def together(program: Path, size: int, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """The JSON objects that rank 0 of `size` processes prints, one a line. All have to end well."""
    processes = []
    for rank in range(size):
        environment = os.environ | {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank),
            STORE: str(folder / f"store_{size}"),
            "PYTHONPATH": str(Path(__file__).parent),
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, str(program), *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate(timeout=400) for process in processes]
    assert [process.returncode for process in processes] == [0] * size, [error[-2000:] for _, error in ended]
    return [json.loads(line) for line in ended[0][0].splitlines()]
