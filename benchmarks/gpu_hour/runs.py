"""`dgpo train` as a user types it: the default run, and a run that is killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from same_numbers import CLOCKED, flat

from dgpo_cli.cli import main
from dgpo_cli.jobs import accuracy
from dgpo_cli.reporting.bands import read_band
from gpu_hour.checks import Hour

QUICK = ["rollout.prompts_per_step=4", "rollout.group_size=4", "eval.limit=8"]


def train(*overrides: str) -> int:
    """The exit code of `dgpo train` in this process."""
    argv = ["train", "logger=none", *overrides]
    sys.argv = ["dgpo", *argv]  # what a run keeps of its command
    return main(argv)


def default_run(hour: Hour) -> None:
    """Its accuracy beside the band of five seeds on CPUs, its seconds, and what drew beside what scores."""
    run = hour.folder / "run"
    shorter = ["steps=2", *QUICK] if hour.small else []
    started = time.perf_counter()
    code = train(f"hydra.run.dir={run}", f"strategy.device={hour.device}", *shorter)
    hour.expect("exit code", code, least=0, most=0)
    hour.expect("seconds", time.perf_counter() - started, most=100, unit="s", judged=hour.on_gpu, note="as on a CPU")
    band = read_band("tiny_dgpo")
    reached = accuracy(run)
    assert reached is not None
    hour.expect(
        "accuracy", reached, least=band.low, most=1.0, judged=not hour.small, note=f"band up to {band.high:.3f}"
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, on_gpu, on_cpu in (("mean", 3e-2, 1e-5), ("max", 0.5, 2e-4)):
        gap = max(row[f"engine/logprob_gap_{name}"] or 0.0 for row in rows)  # None of a step without signal
        most = on_gpu if hour.on_gpu else on_cpu
        hour.expect(f"sampler to scorer, {name}", gap, most=most, unit="nats", note="worst step")
    hour.expect("skipped updates", sum(row["optim/skipped"] for row in rows), least=0, most=0)
    for part in ("rollout", "reward", "train"):
        hour.tell(f"{part} of a step", sum(row[f"seconds/{part}"] or 0.0 for row in rows) / len(rows), "s")


def resume(hour: Hour) -> None:
    """A run that SIGKILL ends after its third step and that goes on, beside two runs that were left alone."""
    steps = ["steps=4", "checkpoint.every=2", "rollout.save=none", f"strategy.device={hour.device}", "eval.limit=8"]
    steps += QUICK if hour.small else []
    folders = {name: hour.folder / name for name in ("alone", "again", "killed")}
    for name in ("alone", "again"):
        hour.expect(f"exit code, {name}", finished(started(folders[name], steps)), least=0, most=0)
    victim = started(folders["killed"], steps)
    after_three = wait_for_rows(folders["killed"] / "metrics.jsonl", 3, victim)
    os.kill(victim, signal.SIGKILL)
    hour.expect("exit code of the killed", finished(victim), least=-signal.SIGKILL, most=-signal.SIGKILL)
    hour.tell("steps when it was killed", after_three)
    hour.expect("exit code, resumed", finished(started(None, [f"resume={folders['killed']}"])), least=0, most=0)
    numbers = {name: values_of(folder) for name, folder in folders.items()}
    for name, what in (("again", "two runs left alone"), ("killed", "killed and resumed")):
        # Only if the first line is 0 too does the second speak of resuming.
        metrics, weights = differences(numbers["alone"], numbers[name]), weight_gap(folders["alone"], folders[name])
        hour.expect(f"{what}: metrics that differ", metrics, least=0, most=0, note=f"of {len(numbers['alone'])}")
        hour.expect(f"{what}: largest difference of a weight", weights, least=0, most=0)
    for folder in folders.values():
        shutil.rmtree(folder)


def started(folder: Path | None, overrides: list[str]) -> int:
    """The process id of a run in a process of its own. This one has not touched the GPU, so that it can fork."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        code = train(*([] if folder is None else [f"hydra.run.dir={folder}"]), *overrides)
        sys.stdout.flush()
    except BaseException:
        code = 1
    os._exit(code)


def finished(child: int) -> int:
    """Its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for_rows(file: Path, count: int, child: int) -> int:
    """How many rows there are, as soon as there are `count`, or the process is no more."""
    while True:
        rows = file.read_text(encoding="utf-8").count("\n") if file.is_file() else 0
        if rows >= count or os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return rows
        time.sleep(0.005)


def values_of(run: Path) -> dict[str, Any]:
    """Every value of the run's metrics that is a function of configuration and seed."""
    found: dict[str, Any] = {}
    for name in ("metrics", "eval"):
        for row in map(json.loads, (run / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()):
            found |= {f"{name} {row['step']} {key}": value for key, value in flat(row).items()}
    return {key: value for key, value in found.items() if not key.split(" ", 2)[2].startswith(CLOCKED)}


def differences(left: dict[str, Any], right: dict[str, Any]) -> int:
    return sum(left.get(key) != right.get(key) for key in left.keys() | right.keys())


def weight_gap(left: Path, right: Path) -> float:
    """The largest difference of the last weights."""
    from safetensors import safe_open

    def weights(run: Path) -> Path:
        return next((run / "checkpoints" / "step_000004").rglob("*.safetensors"))

    gaps = []
    with safe_open(weights(left), "pt") as ours, safe_open(weights(right), "pt") as theirs:
        for name in ours.keys():  # noqa: SIM118 - no mapping
            gaps.append(float((ours.get_tensor(name) - theirs.get_tensor(name)).abs().max()))
    return max(gaps)
