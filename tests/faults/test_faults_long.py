"""The long form of the fault harness, by hand: pytest -m slow tests/faults. Its table is the proof."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.harness import (
    PATIENCE,
    Session,
    at_random,
    copied,
    damage,
    differences,
    finish,
    finish_here,
    kill_and_resume,
    last_row,
    launch,
    line,
    rows,
    saved_step,
    while_saving,
)
from model_factory import save_random_model

from dgpo_cli.cli import main

pytestmark = pytest.mark.slow

COMMON = ["logger=none", "rollout.prompts_per_step=4", "rollout.group_size=4", "strategy.threads=1"]
STEPS = ["steps=24", "checkpoint.every=3", "eval.every=9", "benchmark.limit=8"]
# name: settings of a run. Each goes over an epoch boundary of its data.
RUNS = {
    "grpo": ["algo=grpo", "gating=random", "data.size=30", "reference.refresh_every=4"],
    "dapo": ["algo=dapo", "data.size=6", "algo.dynamic_sampling.max_refills=2"],
    "dgpo": ["algo=dgpo", "gating=calibrated", "data.size=30", "optim.minibatches=2", "optim.epochs=2"],
}
KILLS = {"grpo": 10, "dapo": 10, "dgpo": 10}
GATINGS = ("uniform", "paper", "hellinger", "calibrated", "surprisal", "top_entropy", "random")


def settings_of(name: str) -> list[str]:
    return [*COMMON, *STEPS, *RUNS[name]]


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run that was left alone, in a process of its own like those that are compared with it."""
    folder = tmp_path_factory.mktemp("whole") / request.param
    finish(folder, settings_of(request.param))
    return request.param, folder


def test_killed_at_random_moments(run: tuple[str, Path], tmp_path: Path) -> None:
    name, whole = run
    generator, killed, chain = random.Random(name), 0, 0
    while killed < KILLS[name]:
        chain += 1
        killed += kill_and_resume(
            f"SIGKILL at random, {name}",
            whole,
            tmp_path / str(chain),
            settings_of(name),
            kills=min(5, KILLS[name] - killed),
            moment=at_random(generator, 4.0),
        )
    if name == "dapo":
        assert sum(row["groups/refills"] for row in rows(whole)) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2], ids=lambda number: number.name)
def test_stopped_at_random_moments(run: tuple[str, Path], tmp_path: Path, number: signal.Signals) -> None:
    name, whole = run
    generator = random.Random(f"{name} {number.name}")
    entry = line(f"{number.name}, {name}")
    settings = [*settings_of(name), "checkpoint.signals=[SIGTERM,SIGINT,SIGUSR2]"]
    folder = tmp_path / "stopped"
    for _ in range(2):
        session = launch(folder, settings)
        assert session.wait_for(session.at_work)
        if not at_random(generator, 3.0)(session):
            assert session.end() is not None
            break
        sent, before = time.monotonic(), last_row(folder)
        errors = session.end(number)
        entry.tried += 1
        if session.process.returncode in (0, -number):  # it was done by then, or about to leave
            continue
        assert session.process.returncode == 128 + number, errors
        assert time.monotonic() - sent < 30
        assert "Traceback" not in errors
        assert errors.count("error: ") == 1
        if (folder / "config.yaml").is_file():
            assert last_row(folder) == saved_step(folder)
        entry.steps_lost.append(max(0, before - saved_step(folder)))
    finish(folder, settings)
    found = differences(whole, folder)
    entry.differences += len(found)
    assert not found
    entry.survived = entry.tried


def test_a_second_signal_ends_it_now(tmp_path: Path) -> None:
    entry = line("a second signal")
    folder = tmp_path / "run"
    session = launch(folder, [*COMMON, "benchmark=none", "steps=200", "rollout.prompts_per_step=64", "optim.epochs=40"])
    assert session.wait_for(lambda: last_row(folder) >= 1)
    time.sleep(2.0)
    entry.tried += 1
    session.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    if session.process.poll() is None:
        session.process.send_signal(signal.SIGTERM)
        session.process.wait(timeout=2.0)
    # Either way a shell says 143; -15 if the run had saved itself by then, and given its handlers back.
    assert session.process.returncode in (143, -signal.SIGTERM)
    session.end()
    entry.survived += 1


@pytest.fixture(scope="module")
def wide_settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A random model whose state is over 200 MB: 19 M weights of 4 bytes, and AdamW's 8."""
    folder = tmp_path_factory.mktemp("wide")
    model = save_random_model(folder / "model", hidden_size=1024, layers=2, scale=0.1)
    (folder / "reward.py").write_text(
        "def score(prompt, completion, answer):\n    return float(sum(map(ord, completion)) % 7)\n"
    )
    return [
        f"model.path={model}",
        "data=digit_chain",
        "benchmark=none",
        f"reward.path={folder / 'reward.py'}:score",
        "logger=none",
        "steps=9",
        "checkpoint.every=1",
        "algo=dgpo",
        "rollout.prompts_per_step=2",
        "rollout.group_size=2",
        "rollout.max_completion_tokens=8",
        "optim.warmup_steps=0",
        "strategy.threads=1",
    ]


def test_killed_while_a_checkpoint_is_written(wide_settings: list[str], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    finish(whole, wide_settings)
    newest = whole / "checkpoints" / (whole / "checkpoints/latest").read_text()
    assert sum(file.stat().st_size for file in newest.rglob("*") if file.is_file()) > 200e6
    generator, killed, chain = random.Random(7), 0, 0
    while killed < 10:
        chain += 1
        killed += kill_and_resume(
            "SIGKILL while 240 MB are saved",
            whole,
            tmp_path / f"killed_{chain}",
            wide_settings,
            kills=min(5, 10 - killed),
            moment=while_saving(generator, 1.5),
        )
        shutil.rmtree(tmp_path / f"killed_{chain}")


PARTS = (
    "model/model.safetensors",
    "model/config.json",
    "model/generation_config.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "state/optimizer-00000-of-00001.safetensors",
    "state/counters.json",
    "manifest.json",
    "../latest",
)


@pytest.mark.parametrize("how", ["truncated", "bit flipped"])
@pytest.mark.parametrize("part", PARTS)
def test_the_newest_checkpoint_is_damaged(small_run: Path, tmp_path: Path, part: str, how: str) -> None:
    """Resumed from the one before, the run is the same again; `latest` itself is only a name and costs no step."""
    folder = copied(small_run, tmp_path / "run")
    entry = line(f"checkpoint {how}")
    entry.tried += 1
    newest = folder / "checkpoints" / (folder / "checkpoints" / "latest").read_text()
    damage(newest / part, how, random.Random(f"{part} {how}"))
    finish_here(folder, [])
    found = differences(small_run, folder)
    entry.differences += len(found)
    assert not found
    lost = 0 if part == "../latest" else 2
    assert bool(list(folder.glob("metrics.before_resume_at_*"))) == bool(lost)
    entry.steps_lost.append(lost)
    entry.survived += 1


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "run"
    settings = [*COMMON, "benchmark=none", "steps=4", "checkpoint.every=2"]
    assert main(["train", f"hydra.run.dir={folder}", *settings]) == 0
    return folder


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("algo", ["grpo", "dapo", "dgpo"])
def test_every_algo_and_gating_resumes_exactly(tmp_path: Path, algo: str, gating: str) -> None:
    """As after a kill past the third of six steps: with 10 prompts the second step crosses into another epoch."""
    number = GATINGS.index(gating)
    settings = [*COMMON, "benchmark=none", "steps=6", "checkpoint.every=3", "data.size=10", f"algo={algo}"]
    settings += [f"gating={gating}", f"optim.minibatches={1 + number % 2}", f"optim.epochs={1 + number % 3}"]
    settings += ["algo.dynamic_sampling.enabled=true", "algo.dynamic_sampling.max_refills=2"] if number % 2 else []
    whole = tmp_path / "whole"
    assert main(["train", f"hydra.run.dir={whole}", *settings]) == 0
    resumed = copied(whole, tmp_path / "resumed")
    shutil.rmtree(resumed / "checkpoints" / "step_000006")
    entry = line("resumed, each algo and gating")
    entry.tried += 1
    finish_here(resumed, settings)
    assert (resumed / "metrics.before_resume_at_000003.jsonl").is_file()
    found = differences(whole, resumed)
    entry.differences += len(found)
    assert not found
    entry.steps_lost.append(3)
    entry.survived += 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a full disk needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def resize(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


@pytest.mark.parametrize("size", ["5m", "8900k", "10m", "12900k", "13300k"])
def test_the_disk_is_too_small(small_disk: Path, tmp_path: Path, size: str) -> None:
    settings = [*COMMON, "benchmark.limit=8", "eval.every=3", "steps=8", "checkpoint.every=2", "rollout.save=all"]
    settings[0] = "logger.mode=offline"
    whole, folder = tmp_path / "whole", small_disk / "run"
    assert main(["train", f"hydra.run.dir={whole}", *settings]) == 0
    entry = line("a disk that is too small")
    entry.tried += 1
    resize(small_disk, size)
    session = launch(folder, settings)
    errors = session.end()
    assert "warning: " in errors
    assert "bytes in all" in errors
    starved(session, errors)
    entry.steps_lost.append(last_row(folder) - saved_step(folder))
    resize(small_disk, "64m")
    finish(folder, settings)
    found = differences(whole, folder)
    entry.differences += len(found)
    assert not found
    entry.survived += 1


@pytest.mark.parametrize("seed", range(6))
def test_the_disk_is_filled_up_meanwhile(small_disk: Path, tmp_path: Path, seed: int) -> None:
    """To its last byte, at a random moment: whichever file is written next meets it."""
    settings = [*COMMON, "benchmark.limit=8", "eval.every=2", "steps=12", "checkpoint.every=3"]
    settings += [f"rollout.save={('none', 'all')[seed % 2]}"]
    whole, folder, generator = tmp_path / "whole", small_disk / "run", random.Random(seed)
    assert main(["train", f"hydra.run.dir={whole}", *settings]) == 0
    entry = line("a disk that is filled up")
    entry.tried += 1
    session = launch(folder, settings)
    assert session.wait_for(lambda: last_row(folder) >= 1)
    assert at_random(generator, 1.5)(session)
    fill(small_disk / "filler")
    errors = session.end()
    starved(session, errors)
    entry.steps_lost.append(last_row(folder) - saved_step(folder))
    (small_disk / "filler").unlink()
    finish(folder, settings)
    found = differences(whole, folder)
    entry.differences += len(found)
    assert not found
    entry.survived += 1


def fill(file: Path) -> None:
    """Take every byte that is left."""
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue


def starved(session: Session, errors: str) -> None:
    """One line with a path and bytes, exit code 1, no traceback."""
    assert session.process.returncode == 1, errors
    lines = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert len(lines) == 1, errors
    assert str(session.folder) in lines[0]
    assert "could not be written: No space left on device" in lines[0]
    assert "bytes needed" in lines[0]
    assert "Traceback" not in errors


def test_wandb_cannot_be_reached(tmp_path: Path) -> None:
    """The start is not delayed, the run is recorded offline, and the local files are those of a run without W&B."""
    entry = line("W&B unreachable")
    entry.tried += 1
    settings = [*COMMON[1:], "benchmark=none", "steps=8"]
    env = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_MODE": "online"}
    whole, folder = tmp_path / "whole", tmp_path / "run"
    finish(whole, [*settings, "logger=none"])
    session = launch(folder, [*settings, "logger=wandb"], env=env)
    assert session.wait_for(session.at_work)
    started = time.monotonic()
    assert session.wait_for(lambda: last_row(folder) >= 1)
    assert time.monotonic() - started < 25.0  # wandb itself tries for 30 s and more
    errors = session.end()
    assert session.process.returncode == 0, errors
    assert "the run is recorded offline" in errors
    assert list((folder / "wandb").glob("offline-run-*"))
    assert not differences(whole, folder)
    entry.survived += 1


def test_a_signal_while_wandbs_server_never_answers(tmp_path: Path) -> None:
    """Rank 0 of two is left the time to close it: saved, said, unlocked, and within 30 s all the same."""
    entry = line("SIGTERM, two processes, W&B silent")
    entry.tried += 1
    folder = tmp_path / "run"
    settings = [*COMMON, "benchmark=none", "steps=5000", "logger=wandb", "strategy=ddp", "strategy.num_processes=2"]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "a" * 40, "WANDB_MODE": "online"}
        session = launch(folder, [*settings, "strategy.device=cpu"], env=env)
        assert session.wait_for(lambda: last_row(folder) >= 2)
        started = time.monotonic()
        errors = session.end(signal.SIGTERM)
        assert time.monotonic() - started < 30.0
    assert session.process.returncode == 143, errors
    assert errors.count("error:") == 1
    assert last_row(folder) == int((folder / "checkpoints" / "latest").read_text().removeprefix("step_"))
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert not (folder / "run.lock").exists()
    entry.steps_lost.append(0)
    entry.survived += 1


def test_wandb_keeps_its_run_after_a_kill(tmp_path: Path) -> None:
    entry = line("W&B after SIGKILL")
    entry.tried += 1
    settings = [*COMMON[1:], "benchmark=none", "steps=12", "checkpoint.every=4", "logger.mode=offline"]
    folder = tmp_path / "run"
    session = launch(folder, settings)
    assert session.wait_for(lambda: last_row(folder) >= 2)  # before the first checkpoint
    session.end(signal.SIGKILL)
    before = json.loads((folder / "run.json").read_text())["wandb_run"]
    finish(folder, settings)
    assert json.loads((folder / "run.json").read_text())["wandb_run"] == before
    assert {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")} == {before}
    entry.survived += 1


def test_wandb_hangs(tmp_path: Path) -> None:
    """Its process is stopped: training goes on, and the end waits for seconds only."""
    import psutil

    entry = line("W&B hangs")
    entry.tried += 1
    folder = tmp_path / "run"
    settings = [*COMMON[1:], "benchmark=none", "steps=12", "logger.mode=offline"]
    session = launch(folder, settings)
    services: list[psutil.Process] = []

    def at_work() -> bool:
        children = psutil.Process(session.process.pid).children()
        services[:] = [child for child in children if child.name().startswith("wandb")]
        return bool(services) and last_row(folder) >= 2

    assert session.wait_for(at_work)
    services[0].suspend()
    assert session.wait_for(lambda: last_row(folder) == 12)
    ended = time.monotonic()
    errors = session.end()
    assert session.process.returncode == 0, errors
    assert time.monotonic() - ended < 60.0 < PATIENCE
    assert "Traceback" not in errors
    entry.survived += 1
