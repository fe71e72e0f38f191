"""Starts sweeps of the stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_program import JOBS, Start

import dgpo_cli


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(JOBS)
    paths = [str(tmp_path / "path"), str(Path(dgpo_cli.__file__).parent.parent), str(Path(__file__).parent.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("HYDRA_FULL_ERROR", None)

    started = []

    def run(*argv: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "dgpo_cli", "train", "-m", *argv]
        pipe = subprocess.PIPE
        process = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()  # its jobs end by themselves
        process.communicate()
