"""`dgpo train` on several processes of this machine, the real command: its launcher, its checkpoints, its ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from dgpo_cli.bundled import bundled_path
from dgpo_cli.cli import main
from dgpo_cli.planning.architecture import from_json
from dgpo_cli.training.host_memory import shared_bytes

QUICK = [
    "logger=none",
    "benchmark=none",
    "rollout.prompts_per_step=4",
    "rollout.group_size=4",
    "data.size=64",
    "engine.batch_size=6",  # so that processes get unlike numbers of units
    "optim.tokens_per_microbatch=200",
    "optim.schedule=constant",
    "rollout.save=all",
    "checkpoint.every=1",
    "strategy.device=cpu",
]


def start(*overrides: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dgpo_cli", "train", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def torchrun(launcher: list[str], *overrides: str) -> subprocess.Popen[str]:
    """Two processes of torchrun's, which starts both again where one fails."""
    command = [
        str(Path(sys.executable).with_name("torchrun")),
        "--nproc-per-node=2",
        f"--master-port={free_port()}",
        *launcher,
    ]
    return subprocess.Popen(
        [*command, "-m", "dgpo_cli", "train", *QUICK, "strategy=ddp", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def wait_for_rows(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + 240
    while len(rows(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The worker processes by rank."""
    return {int(child.environ()["RANK"]): child for child in psutil.Process(process.pid).children()}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def fresh_workers(process: subprocess.Popen[str], killed: set[int]) -> dict[int, psutil.Process]:
    """Both workers of a later attempt than those of `killed`; nothing while they start or end."""
    try:
        found = workers(process)
    except (psutil.Error, KeyError):
        return {}
    return found if len(found) == 2 and not killed & {worker.pid for worker in found.values()} else {}


def weights(folder: Path) -> dict[str, Any]:
    latest = folder / "checkpoints" / (folder / "checkpoints" / "latest").read_text().strip()
    return dict(load_file(latest / "model" / "model.safetensors"))


def sampled(folder: Path) -> list[list[int]]:
    files = sorted((folder / "rollouts").glob("step_*.jsonl"))
    return [json.loads(line)["token_ids"] for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "legs",
    [
        ["strategy=fsdp strategy.num_processes=2", "strategy=single"],
        pytest.param(
            ["strategy=ddp strategy.num_processes=2", "strategy=single", "strategy=fsdp strategy.num_processes=4"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                "strategy=fsdp_offload strategy.num_processes=2",
                "strategy=single",
                "strategy=ddp strategy.num_processes=4",
            ],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                "strategy=fsdp strategy.num_processes=2 strategy.sequence_parallel=2",
                "strategy=single strategy.sequence_parallel=1",
                "strategy=ddp strategy.num_processes=4 strategy.sequence_parallel=2",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["fsdp 2, 1", "ddp 2, 1, fsdp 4", "fsdp_offload 2, 1, ddp 4", "a sequence over 2, 1, a sequence over 2"],
)
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, legs: list[str]) -> None:
    """The same tokens are drawn as by one process throughout, and the weights differ by rounding alone.

    8 problems in batches of 6: the benchmark's units, of 6 and 2, are unlike and are drawn side by side.
    """
    alone, several = tmp_path / "alone", tmp_path / "several"
    quick = [text for text in QUICK if text != "benchmark=none"] + ["benchmark.limit=8", "benchmark.k=2"]
    assert main(["train", f"hydra.run.dir={alone}", *quick, f"steps={2 * len(legs)}"]) == 0
    for number, leg in enumerate(legs):
        place = [f"resume={several}"] if number else [f"hydra.run.dir={several}", *quick]
        assert main(["train", *place, *leg.split(), f"steps={2 * (number + 1)}"]) == 0
    assert sampled(several) == sampled(alone)
    before = Path("evals", "step_000000", "samples.jsonl")
    assert (several / before).read_text() == (alone / before).read_text()
    ours, theirs = weights(several), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert float((ours[name] - value).norm() / value.norm()) < 1e-5
    for mine, other in zip(rows(several), rows(alone), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert mine["credit/ess"] == pytest.approx(other["credit/ess"], abs=1e-6)
        assert mine["samples/generated"] == other["samples/generated"] == 16


def test_a_killed_worker_ends_the_run_by_name_and_a_signal_saves_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(f"hydra.run.dir={run}", *QUICK, "steps=500", "strategy=ddp", "strategy.num_processes=2")
    wait_for_rows(run, process, 2)
    workers(process)[1].kill()
    killed = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode == 1
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "rank 1 " in errors[0]
    assert "SIGKILL" in errors[0]

    process = start(f"resume={run}", "checkpoint.signals=[SIGTERM,SIGINT,SIGUSR1]")
    before = len(rows(run))
    wait_for_rows(run, process, before + 1)
    assert sorted(workers(process)) == [0, 1]
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, said
    assert said.count("error:") == 1
    assert (run / "checkpoints" / "latest").read_text() == f"step_{rows(run)[-1]['step']:06d}"
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"


STATIC = ["--max-restarts=3"]
C10D = ["--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]


@pytest.mark.parametrize(
    ("launcher", "kills", "overrides"),
    [
        (["--max-restarts=1", "--standalone"], [(1, 1)], []),
        pytest.param(STATIC, [(0, 2), (1, 4)], [], marks=pytest.mark.slow),
        pytest.param(C10D, [(1, 1), (0, 3)], ["checkpoint.every=2"], marks=pytest.mark.slow),
        pytest.param(STATIC, [(0, 1)], ["checkpoint.every=100"], marks=pytest.mark.slow),
    ],
    ids=["one", "static, two, rank 0 first", "c10d, two", "before a checkpoint"],
)
def test_a_run_goes_on_by_itself_where_its_launcher_starts_it_again(
    tmp_path: Path, launcher: list[str], kills: list[tuple[int, int]], overrides: list[str]
) -> None:
    """Workers killed after so many rows. The folder is named by the time: the next attempt finds it all the same.

    The reward takes longer for a step than a stall may last.
    """
    for name, seconds in (("slow", 0.75), ("quick", 0)):
        body = f"import time\ndef score(p, c, a):\n    time.sleep({seconds})\n    return c == a, c == a\n"
        (tmp_path / f"{name}.py").write_text(body)
    whole, runs = tmp_path / "whole", tmp_path / "runs"
    settings = [*overrides, f"steps={kills[-1][1] + 1}"]
    stamped = f"hydra.run.dir={runs}/${{now:%H-%M-%S-%f}}"
    reward = f"reward.path={tmp_path / 'slow.py'}:score"
    process = torchrun(launcher, *settings, reward, stamped, "strategy.stall_seconds=10")
    killed: set[int] = set()
    for rank, count in kills:
        deadline = time.monotonic() + 240
        while not (found := fresh_workers(process, killed)) or not any(
            len(rows(run)) >= count for run in runs.glob("*")
        ):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed |= {worker.pid for worker in found.values()}
        found[rank].kill()
    reward = f"reward.path={tmp_path / 'quick.py'}:score"
    assert main(["train", f"hydra.run.dir={whole}", *QUICK, *settings, reward]) == 0
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (run,) = runs.glob("*")
    assert out == f"{run}\n"
    assert said.count(f"note: started again by the launcher: the run in {run} goes on") == len(kills)
    assert sampled(run) == sampled(whole)
    for mine, other in zip(rows(run), rows(whole), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert mine["reward/mean"] == other["reward/mean"]


def test_a_signal_while_the_workers_start_ends_them_all(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(f"hydra.run.dir={folder}", *QUICK, "strategy=ddp", "strategy.num_processes=2")
    deadline = time.monotonic() + 120
    while not psutil.Process(process.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    error = "error: interrupted by SIGTERM before all processes were at work"
    lines = said.splitlines()  # before the error: the run's folder, and the phases that took long
    assert (lines[0], lines[-1], said.count("error:")) == (f"run: {folder}", error, 1)


def test_what_all_processes_refuse_is_said_once_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = ["model.lora.rank=2", "model.lora.target_modules=[foo]", "strategy=ddp", "strategy.num_processes=2"]
    assert main(["train", f"hydra.run.dir={tmp_path / 'run'}", *QUICK, *overrides]) == 2
    said = capfd.readouterr().err
    assert said.count("error:") == 1
    assert "foo" in said
    assert not list((tmp_path / "run").glob("*"))


def test_a_rank_that_never_comes_is_named(tmp_path: Path) -> None:
    port = free_port()
    process = start(
        f"hydra.run.dir={tmp_path / 'run'}",
        *QUICK,
        "strategy=ddp",
        "strategy.connect_seconds=2",
        RANK="0",
        WORLD_SIZE="3",
        LOCAL_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=port,
    )
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: rank 1, 2 of 3 did not join within 2 s" in said


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["strategy=ddp"], "strategy.num_processes=2"),
        (["strategy=fsdp", "strategy.num_processes=0"], "at least 1"),
        (["strategy=ddp", "strategy.num_processes=3", "strategy.sequence_parallel=2"], "strategy.num_processes=4"),
    ],
)
def test_what_cannot_be_started_is_said_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], overrides: list[str], expected: str
) -> None:
    assert main(["train", f"hydra.run.dir={tmp_path / 'run'}", *QUICK, *overrides]) == 2
    said = capfd.readouterr().err
    assert said.count("error:") == 1
    assert expected in said
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_starts_no_whole_teams_is_refused_before_they_meet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**launched, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, value)
    teams = ["strategy=ddp", "strategy.sequence_parallel=2", "strategy.connect_seconds=1"]
    assert main(["train", f"hydra.run.dir={tmp_path / 'run'}", *QUICK, *teams]) == 2
    said = capfd.readouterr().err
    assert "error: strategy.sequence_parallel=2: 3 processes do not make up teams of 2" in said


@pytest.mark.slow  # what decides is tested in tests/training/test_memory.py
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_that_fit_alone_and_not_together_are_refused_before_the_first_step(
    strategy: str, tmp_path: Path
) -> None:
    """Micro-batches of 0.75 of the free memory, two of them: `rollouts` of 60 tokens for each process."""
    model = from_json(bundled_path("tiny") / "config.json")
    rollouts = int(0.75 * shared_bytes() / (60 * model.layers * model.saved_bytes(4)))
    process = start(
        f"hydra.run.dir={tmp_path / 'run'}",
        *("logger=none", "benchmark=none", "data.size=64", f"strategy={strategy}", "strategy.num_processes=2"),
        *("strategy.device=cpu", "optim.tokens_per_microbatch=1000000000", "rollout.group_size=2"),
        f"rollout.prompts_per_step={rollouts}",
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    found = re.search(r"each of 2 processes needs ([\d.]+) GiB .* ([\d.]+) GiB are free for each", err)
    assert found is not None, err
    needed, share = map(float, found.groups())
    assert share < needed < 2 * share, "one of them alone would have fitted"
    assert not (tmp_path / "run").exists()
