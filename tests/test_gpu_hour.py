"""benchmarks/gpu.py on tiny models and a CPU: so that the hour with a GPU finds a script that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from gpu_hour.checks import Hour, read_checks
from gpu_hour.sections import SECTIONS, Section

ROOT = Path(__file__).parents[1]
QUICK = ["machine", "scoring", "scoring_speed", "sampler_gap", "memory", "step_0.5B", "decode", "colocated"]


def report_of(folder: Path, *options: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]], str]:
    """The report, its sections by name, and what was printed."""
    line = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--small", "--out", str(folder), *options]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert done.returncode == (0 if report["held"] else 1), done.stdout + done.stderr
    return report, {record["name"]: record for record in report["sections"]}, done.stdout


def checks_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in record["checks"]}


def test_the_quick_sections_hold_on_a_cpu(tmp_path: Path) -> None:
    report, sections, said = report_of(tmp_path, "--only", *QUICK)
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert report["held"], said + log
    assert list(sections) == QUICK
    skipped = {name for name, record in sections.items() if record["status"] == "skipped"}
    assert skipped == {"colocated"}
    assert "colocated: skipped" in said
    assert "needs servers of vLLM on this GPU" in said
    for name in set(QUICK) - skipped:
        assert sections[name]["checks"], name
    exact = checks_of(sections["scoring"])["V=1003 D=48 N=200 bfloat16: distance of a copy"]
    assert (exact["measured"], exact["expected"], exact["ok"]) == (0.0, "0", True)
    # Speeds and memory of a CPU are told beside what a GPU is expected to do, and not judged.
    speed = checks_of(sections["step_0.5B"])["MFU of training"]
    assert speed["ok"] is None
    assert speed["expected"] == "at least 0.3"


@pytest.mark.slow
def test_all_sections_hold_on_a_cpu(tmp_path: Path) -> None:
    report, sections, said = report_of(tmp_path)
    assert report["held"], said + (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert list(sections) == [section.name for section in SECTIONS]
    resumed = checks_of(sections["resume"])
    assert resumed["killed and resumed: largest difference of a weight"]["measured"] == 0.0


@pytest.mark.slow
def test_an_hour_that_is_cut_keeps_what_it_found_and_leaves_no_process(tmp_path: Path) -> None:
    line = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--small", "--out", str(tmp_path)]
    hour = subprocess.Popen([*line, "--only", "machine", "scoring", "resume"], cwd=ROOT, stdout=subprocess.DEVNULL)
    report = tmp_path / "report.json"
    while not report.is_file() or len(json.loads(report.read_text(encoding="utf-8"))["sections"]) < 2:
        assert hour.poll() is None
        time.sleep(0.05)
    while "loading tiny" not in (tmp_path / "log.txt").read_text(
        encoding="utf-8"
    ):  # the first run of the third section
        time.sleep(0.05)
    section = [child for child in psutil.Process(hour.pid).children(recursive=True) if child.is_running()]
    hour.terminate()
    assert hour.wait(60) == 128 + signal.SIGTERM
    found = json.loads(report.read_text(encoding="utf-8"))
    assert [record["name"] for record in found["sections"]] == ["machine", "scoring"]
    _, alive = psutil.wait_procs(section, timeout=30)
    assert not alive


PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gpu_hour.checks import Hour
from gpu_hour.process import run_section
from gpu_hour.sections import Section

if __name__ == "__main__":
    records = []
    for name, seconds in (("holds", 60.0), ("fails", 60.0), ("stays", 5.0)):
        folder = Path(sys.argv[2]) / name
        folder.mkdir()
        hour = Hour(name, "cpu", True, str(folder), str(folder / "checks.jsonl"))
        section = Section(name, f"made_up_section:{name}", seconds)
        records.append(run_section(section, hour, seconds=seconds, log=Path(sys.argv[2]) / "log.txt"))
    print(json.dumps(records))
"""
MADE_UP = """
import subprocess, sys, time

def holds(hour):
    hour.expect("half", 0.5, least=0.25, most=1.0)
    hour.expect("not a number", float("nan"), most=1.0, judged=False)

def fails(hour):
    hour.expect("too much", 3.0, most=1.0)
    raise ValueError("a bad day")

def stays(hour):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    hour.tell("process", other.pid)
    time.sleep(600)
"""


def test_a_section_that_fails_or_stays_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    package = tmp_path / "path" / "gpu_hour"
    package.mkdir(parents=True)
    for file in ("checks.py", "process.py", "sections.py"):
        (package / file).write_text((ROOT / "benchmarks" / "gpu_hour" / file).read_text(encoding="utf-8"))
    (package / "__init__.py").touch()
    (package / "preload.py").write_text("import torch", encoding="utf-8")
    (package / "made_up_section.py").write_text(MADE_UP, encoding="utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    line = [sys.executable, str(tmp_path / "program.py"), str(package.parent), str(tmp_path)]
    paths = os.pathsep.join([str(package.parent), str(ROOT)])
    done = subprocess.run(line, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    holds, fails, stays = json.loads(done.stdout.splitlines()[-1])
    assert holds["status"] == "ok"
    assert [check["ok"] for check in holds["checks"]] == [True, None]
    assert (fails["status"], fails["error"]) == ("failed", "ValueError: a bad day")
    assert [check["ok"] for check in fails["checks"]] == [False]
    assert stays["status"] == "over time"
    pid = int(stays["checks"][0]["measured"])
    # Killed; where process 1 collects no orphans it stays behind as a zombie.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    hour = Hour("one", "cpu", True, str(tmp_path), str(tmp_path / "checks.jsonl"))
    hour.expect("copy of a model", 0.0, least=0, most=0)
    hour.expect("distance", float("nan"), most=1e-2)
    with (tmp_path / "checks.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "half a li')
    checks = read_checks(tmp_path / "checks.jsonl")
    assert [(check.name, check.ok) for check in checks] == [("copy of a model", True), ("distance", False)]
    assert checks[0].line == "copy of a model: 0  expected 0  ok"


def test_no_section_is_named_twice_and_each_has_its_limit() -> None:
    names = [section.name for section in SECTIONS]
    assert len(names) == len(set(names))
    assert all(section.seconds > 0 for section in SECTIONS if not section.skipped)


def test_a_section_of_an_extra_that_is_not_installed_says_so() -> None:
    assert Section("one", "x:y", 1.0, ("json", "no_such_module")).missing() == ["no_such_module"]
