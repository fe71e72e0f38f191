"""`dgpo train -m` in processes of its own, with a small stand-in for training that its seed tells to fail or to wait.

The program, its signals and its files are real. The stand-in is put in place by a sitecustomize module.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

Start = Callable[..., subprocess.Popen[str]]
JOBS = """
import json, os, shutil, signal, sys, time, types
from pathlib import Path
import run_factory

def train(config, folder):
    from dgpo_cli.config.stored import save
    from dgpo_cli.errors import Interrupted, RunError

    with (folder / "starts.jsonl").open("a") as stream:
        stream.write(json.dumps([config.resume, config.overwrite]) + "\\n")
    starts = len((folder / "starts.jsonl").read_text().splitlines())
    save(config, folder / "config.yaml")
    if config.seed == 13 or (config.seed == 17 and starts == 1):
        raise RunError(f"seed {config.seed} is unlucky", "take another")
    if config.seed >= 30:
        rows = [{"step": step, "avg_at_k": {"value": 0.0}} for step in (0, 1)]
        (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    if config.seed >= 20 and not Path("go").exists():
        received = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: received.append(number))
        (folder / "waits").touch()
        while not received:
            time.sleep(0.01)
        time.sleep(0.2)
        (folder / "saved").write_text(str(received))
        raise Interrupted("stopped after it was saved", exit_code=128 + received[0])
    if config.algo.name == "dgpo":
        row = {"step": 1, "avg_at_k": {"value": config.seed / 100}}
        (folder / "eval.jsonl").write_text(json.dumps(row) + "\\n")
    else:
        shutil.rmtree(folder / "evals", ignore_errors=True)
        ahead = 2 * (config.algo.name == "dapo")
        run_factory.training(folder, [2 + ahead, ahead, 1, config.seed % 4], seed=config.seed, algo=config.algo.name)

module = types.ModuleType("dgpo_cli.commands.train")
module.run = train
sys.modules[module.__name__] = module
"""


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=180)
    return process.returncode, err


def table(err: str) -> list[list[str]]:
    """Number, status, exit code, accuracy, what differs of each job."""
    lines = err[err.index("job  status") :].splitlines()[1:]
    return [line.split()[:5] for line in lines if line.split()[0].isdigit()]


def starts(folder: str) -> list[list[object]]:
    return [json.loads(line) for line in Path("sweep", folder, "starts.jsonl").read_text().splitlines()]


def wait_for(process: subprocess.Popen[str], *files: str) -> None:
    deadline = time.monotonic() + 120
    while not all(Path("sweep", file).exists() for file in files):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
