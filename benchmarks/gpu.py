"""The first hour with a GPU: everything that only a GPU shows, in under nine minutes, without network.

    python benchmarks/gpu.py                         on an H100 or H200; writes outputs/gpu_hour/report.json and log.txt
    python benchmarks/gpu.py --only memory decode    some sections
    python benchmarks/gpu.py --device cpu --small    the same script on tiny models: what the tests run

Each section is a process of its own with a limit of its own, the most important first, and puts each measured value
beside the expected one. The report is written anew after each, so a run that is cut loses nothing; a section that fails
or runs over is told, and the rest goes on. Exit code 0: everything held. 1: something did not, or was not reached.
Speeds and memory are judged on a GPU alone; sections of extras that are not installed are skipped, which is said.

A machine with torch and transformers but without Hydra, and without network, needs three packages of pure Python. On
another machine, in the repository's root (`.carry/` is ignored by git, and found by this script):

    pip install --target .carry --no-deps hydra-core==1.3.8 omegaconf==2.3.1 antlr4-python3-runtime==4.9.3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CARRIED = ROOT / ".carry"
PATHS = [ROOT / "benchmarks", ROOT, *([CARRIED] if CARRIED.is_dir() else [])]
sys.path[:0] = [str(path) for path in PATHS if str(path) not in sys.path]

from gpu_hour.checks import Check, Hour  # noqa: E402
from gpu_hour.process import run_child, run_section  # noqa: E402
from gpu_hour.sections import COMPOSES, EXTRAS, SECTIONS, Section  # noqa: E402

PACKAGES = ("torch", "transformers", "accelerate", "triton", "hydra-core", "peft")
SECONDS = {"cuda": 530.0, "cpu": 3600.0}
PATIENCE = {"cuda": 1.0, "cpu": 10.0}  # times a section's limit, which is made for a GPU and a free machine
LEAST_SECONDS = 5.0  # with less left a section is not begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [section.name for section in SECTIONS]
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SECTION", help=", ".join(names))
    parser.add_argument("--skip", nargs="+", choices=names, default=[], metavar="SECTION")
    parser.add_argument("--seconds", type=float, help="of all sections together: 530 on a GPU, 3600 on a CPU")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_hour"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        run_child(asked.child)
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the section's process ends with this one
    prepare_environment(asked.device)
    chosen = [section for section in SECTIONS if section.name in asked.only and section.name not in asked.skip]
    sys.exit(0 if run(chosen, asked) else 1)


def prepare_environment(device: str) -> None:
    """What the sections' processes find: the paths of this one, and a GPU that no import wakes up."""
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, PATHS), *([inherited] if inherited else [])])
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def run(chosen: list[Section], asked: argparse.Namespace) -> bool:
    """Run the sections and write the report; whether everything held."""
    asked.out.mkdir(parents=True, exist_ok=True)
    log = asked.out / "log.txt"
    log.write_text("", encoding="utf-8")
    report = beginning(asked)
    say_extras(report)
    deadline = time.monotonic() + (asked.seconds or SECONDS[asked.device])
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="gpu_hour_", dir=roomy_folder()) as scratch:
        for section in chosen:
            folder = Path(scratch) / section.name
            folder.mkdir()
            hour = Hour(section.name, asked.device, asked.small, str(folder), str(folder / "checks.jsonl"), found)
            seconds = min(PATIENCE[asked.device] * section.seconds, deadline - time.monotonic())
            record = unable(section, asked.device) or late(section, seconds)
            record = record or run_section(section, hour, seconds=seconds, log=log.absolute())
            numbers = {check["name"]: check["measured"] for check in record["checks"]}
            found |= {f"{section.name}/{name}": value for name, value in numbers.items() if not isinstance(value, str)}
            report["sections"].append(record)
            report["held"] = all(one["status"] in ("ok", "skipped") for one in report["sections"])
            write(report, asked.out / "report.json")
            show(record)
    return finish(report, asked.out)


def beginning(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": asked.device,
        "small": asked.small,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: installed(name) for name in PACKAGES},
        "extras_missing": [name for name in EXTRAS if find_spec(name) is None],
        "held": False,
        "sections": [],
    }


def say_extras(report: dict[str, Any]) -> None:
    print("versions: " + ", ".join(f"{name} {number or '-'}" for name, number in report["versions"].items()))
    for name in report["extras_missing"]:
        print(f"not installed: {name} ({EXTRAS[name]}); what needs it is skipped")


def unable(section: Section, device: str) -> dict[str, Any] | None:
    """The record of a section that cannot run here: skipped for want of an extra, failed for want of Hydra."""
    missing = section.missing()
    if set(missing) & set(COMPOSES):
        return empty(section, "failed", f"{' and '.join(missing)} missing: --help says how to carry them along")
    if missing or section.skipped:
        why = [f"{' and '.join(missing)} not installed"] if missing else []
        return empty(section, "skipped", "; ".join([*why, *([section.skipped] if section.skipped else [])]))
    if device == "cuda" and section.gpu_gib > (memory := gpu_gib()):
        return empty(section, "skipped", f"needs a GPU of {section.gpu_gib} GiB, this one has {memory:.0f}")
    return None


def late(section: Section, seconds: float) -> dict[str, Any] | None:
    return None if seconds >= LEAST_SECONDS else empty(section, "not reached", "the time of all sections is used up")


def empty(section: Section, status: str, why: str) -> dict[str, Any]:
    return {
        "name": section.name,
        "status": status,
        "error": why,
        "seconds": 0.0,
        "cpu_seconds": 0.0,
        "limit": 0.0,
        "checks": [],
    }


def show(record: dict[str, Any]) -> None:
    error = f": {record['error']}" if record["error"] else ""
    took = f"{record['seconds']:.0f} of {record['limit']:.0f} s, {record['cpu_seconds']:.1f} of CPU"
    print(f"\n{record['name']}: {record['status']} ({took}){error}")
    for check in record["checks"]:
        print(f"  {Check(**check).line}", flush=True)


def finish(report: dict[str, Any], out: Path) -> bool:
    by_status: dict[str, list[str]] = {}
    for record in report["sections"]:
        by_status.setdefault(record["status"], []).append(record["name"])
    print("\n" + "; ".join(f"{status}: {', '.join(names)}" for status, names in by_status.items()))
    print(f"{out / 'report.json'}; what the sections said: {out / 'log.txt'}")
    return bool(report["held"])


def write(report: dict[str, Any], file: Path) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def gpu_gib() -> float:
    """Memory of the first GPU, asked of the driver's library and not of CUDA: this process's children use that."""
    import subprocess

    line = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[0]) / 1024
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return 0.0


def roomy_folder() -> str | None:
    """Memory as a folder, if it has room for the models that are saved (10 GB); else the usual place."""
    import shutil

    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > 20 * 2**30 else None


if __name__ == "__main__":
    main()
