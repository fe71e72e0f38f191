"""The commands of docs/your-own.md, typed into a shell one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import dgpo_cli

DOCS = Path(dgpo_cli.__file__).parent.parent / "docs"
ROWS = '{"question": "9 -5=? +4=?", "answer": "9 -5=4 +4=8"}\n'


def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    commands = [
        line
        for block in re.findall(r"```\n(.*?)```", (DOCS / "your-own.md").read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(commands) == 7
    (tmp_path / "my.jsonl").write_text(
        ROWS * 1 + ROWS.replace("9 -5=? +4=?", "1 +2=?").replace("9 -5=4 +4=8", "1 +2=3")
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dgpo").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dgpo_cli "$@"\n')
    (tmp_path / "bin" / "dgpo").chmod(0o755)
    paths = os.pathsep.join((str(tmp_path / "bin"), os.environ["PATH"]))
    environment = {**os.environ, "PATH": paths, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(DOCS.parent)
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    jobs = list((tmp_path / "outputs" / "sweep" / "pair").glob("*/run.json"))
    assert len(jobs) == 2
    assert all((job.parent / "tensorboard").is_dir() and (job.parent / "wandb").is_dir() for job in jobs)
    assert (tmp_path / "outputs" / "train" / "second" / "run.json").is_file()
