"""A section in a process of its own, with a limit of its own; whatever becomes of it is a record. No torch in here.

Processes are forked from one that has imported torch and transformers and has not touched the GPU.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_hour.checks import Hour, read_checks
from gpu_hour.sections import Section

PROGRAM = Path(__file__).resolve().parents[1] / "gpu.py"
KILLED_AFTER = 5.0  # seconds that a killed process has to go
FAILED, CPU = "failed.txt", "cpu_seconds.txt"  # in the section's folder: why, and what it took


def run_section(section: Section, hour: Hour, *, seconds: float, log: Path) -> dict[str, Any]:
    """The section's record: status, seconds, checks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gpu_hour.preload"])
    process = context.Process(target=_enter, args=(section.function, asdict(hour), str(log)))
    started = time.perf_counter()
    process.start()
    try:
        process.join(seconds)
        over = process.is_alive()
    finally:
        _end(process)
    checks = read_checks(Path(hour.file))
    error, cpu = (_text(hour.folder / name) for name in (FAILED, CPU))
    if over:
        status, error = "over time", f"ended after {seconds:.0f} s"
    elif process.exitcode != 0:
        status, error = "failed", error or f"exit code {process.exitcode}"
    else:
        held = checks and all(check.ok is not False for check in checks)
        status, error = "ok" if held else "not ok", "" if checks else "it measured nothing"
    return {
        "name": section.name,
        "status": status,
        "error": error,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": float(cpu or "nan"),
        "limit": round(seconds, 1),
        "checks": [asdict(check) for check in checks],
    }


def run_child(text: str) -> None:
    """A section in this process, as `_enter` orders it where it cannot run in its own: gpu.py --child."""
    order = json.loads(text)
    _run(order["function"], Hour(**order["hour"]))


def _enter(function: str, hour: dict[str, Any], log: str) -> None:
    os.setsid()  # so that what it starts can be ended with it
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for the life of the process
    print(f"--- {hour['section']}", flush=True)
    import torch

    if torch.cuda._is_in_bad_fork():  # an import has asked the driver for its GPUs
        order = json.dumps({"function": function, "hour": hour})
        os.execv(sys.executable, [sys.executable, str(PROGRAM), "--child", order])
    _run(function, Hour(**hour))


def _run(function: str, hour: Hour) -> None:
    module, name = function.split(":")
    try:
        hour.folder.mkdir(parents=True, exist_ok=True)
        getattr(importlib.import_module(f"gpu_hour.{module}"), name)(hour)
    except BaseException as error:  # also SystemExit: a section that ends early has failed
        traceback.print_exc()
        text = " ".join(str(error).split())[:400]
        (hour.folder / FAILED).write_text(f"{type(error).__name__}: {text}", encoding="utf-8")
        sys.exit(1)
    finally:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        (hour.folder / CPU).write_text(f"{sum(one.ru_utime + one.ru_stime for one in used):.2f}", encoding="utf-8")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _end(process: Any) -> None:
    """Nothing of the section goes on: neither its process nor those of its session."""
    if process.is_alive():
        process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join(KILLED_AFTER)
