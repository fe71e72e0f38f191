"""Kills of a run that draws with vLLM: of its trainer, a rank, a server, each at random and while weights are pushed.

By hand: pytest -m slow tests/faults/test_faults_vllm.py. Trainers and ranks are killed beside the server of the test
run, which is not theirs; servers, beside runs that started them.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from faults.harness import (
    Session,
    at_random,
    differences,
    finish,
    kill_and_resume,
    last_row,
    launch,
    line,
    saved_step,
)

pytestmark = pytest.mark.slow

KILLS = 10
COMMON = [
    *("logger=none", "benchmark=none", "rollout.prompts_per_step=4", "rollout.group_size=4", "strategy.threads=1"),
    *("data.size=30", "optim.lr=1e-3", "checkpoint.every=2", "engine=vllm"),
]
GONE_SECONDS = 30.0  # after a trainer's end
OF_PUSHES = ("engine/sync_bytes",)  # what was pushed once more to a server that came up again


def beside(url: str, *more: str) -> list[str]:
    return [*COMMON, "steps=12", f"engine.urls=[{url}]", *more]


@pytest.mark.parametrize("lag", [0, 1])
def test_a_trainer_is_killed_at_random_moments(vllm_url: str, tmp_path: Path, lag: int) -> None:
    settings = beside(vllm_url, f"rollout.lag={lag}")
    finish(tmp_path / "whole", settings)
    chains(f"vllm, lag {lag}: SIGKILL of the trainer", tmp_path, settings, at_random(random.Random(lag), 2.0))


def test_a_trainer_is_killed_while_it_pushes_weights(vllm_url: str, tmp_path: Path) -> None:
    place = tmp_path / "weights"
    place.mkdir()
    settings = beside(vllm_url, f"engine.sync_folder={place}")
    finish(tmp_path / "whole", settings)
    generator = random.Random("push")

    def pushing(session: Session) -> bool:
        """A random step's push, from its first file on."""
        wanted = last_row(session.folder) + generator.randrange(3)
        if not session.wait_for(lambda: last_row(session.folder) >= wanted):
            return False
        return session.wait_for(lambda: any(place.rglob("*.safetensors")))

    chains("vllm: SIGKILL during a push", tmp_path, settings, pushing)
    assert not list(place.iterdir()), "what a killed run left, the next one removes"


def test_a_rank_is_killed_at_random_moments(vllm_url: str, tmp_path: Path) -> None:
    settings = beside(vllm_url, "strategy=ddp", "strategy.num_processes=2")
    finish(tmp_path / "whole", settings)
    generator, entry, folder = random.Random("rank"), line("vllm: SIGKILL of a rank"), tmp_path / "run"
    while entry.tried < KILLS:
        session = launch(folder, settings)
        if not session.wait_for(partial(both_there, session)) or not at_random(generator, 2.0)(session):
            assert session.end() is not None
            again(tmp_path, folder)
            continue
        here = ranks(session)
        victim = generator.choice(here)
        victim.kill()
        entry.tried += 1
        assert session.end() is not None
        assert session.process.returncode != 0
        psutil.wait_procs(here, timeout=GONE_SECONDS)
        assert not any(one.is_running() for one in here)
        entry.steps_lost.append(max(0, last_row(folder) - saved_step(folder)))
        entry.survived += 1
    finish(folder, settings)
    found = differences(tmp_path / "whole", folder)
    entry.differences += len(found)
    assert not found


def test_servers_are_killed_at_random_moments(tmp_path: Path) -> None:
    """They come up again in the same run, which draws the same."""
    settings = [*COMMON, "steps=24"]
    finish(tmp_path / "whole", settings)
    generator, entry, folder = random.Random("server"), line("vllm: SIGKILL of the server"), tmp_path / "run"
    session = launch(folder, settings)
    while entry.tried < KILLS:
        before = last_row(folder)
        lives = session.wait_for(lambda seen=before: last_row(folder) > seen)  # type: ignore[misc]
        assert lives, session.end()
        until = time.monotonic() + generator.uniform(0.0, 2.0)
        lives = session.wait_for(lambda late=until: time.monotonic() >= late)  # type: ignore[misc]
        assert lives, session.end()
        for one in servers(session):
            one.kill()
        entry.tried += 1
    errors = session.end()
    assert session.process.returncode == 0, errors
    assert errors.count("started anew") == KILLS
    entry.survived += KILLS
    found = [text for text in differences(tmp_path / "whole", folder) if not text.endswith(OF_PUSHES)]
    entry.differences += len(found)
    assert not found


def test_nothing_is_left_of_a_killed_trainers_servers(tmp_path: Path) -> None:
    generator, entry = random.Random("left"), line("vllm: servers of a killed trainer")
    for number in range(3):
        session = launch(tmp_path / str(number), [*COMMON, "steps=24"])
        assert session.wait_for(partial(has_servers, session))
        until = time.monotonic() + generator.uniform(0.0, 60.0)  # while they load, or later
        assert session.wait_for(lambda late=until: time.monotonic() >= late)  # type: ignore[misc]
        family = psutil.Process(session.process.pid).children(recursive=True)
        entry.tried += 1
        session.process.send_signal(signal.SIGKILL)
        session.process.wait()
        _, left = psutil.wait_procs(family, timeout=GONE_SECONDS)
        assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        session.end()
        entry.survived += 1


def chains(name: str, tmp_path: Path, settings: list[str], moment: Callable[[Session], bool]) -> None:
    """Runs that are killed up to four times each, until there were enough kills."""
    killed, chain = 0, 0
    while killed < KILLS:
        chain += 1
        assert chain <= KILLS, "runs end before a kill hits them"
        folder, most = tmp_path / f"run{chain}", min(4, KILLS - killed)
        killed += kill_and_resume(name, tmp_path / "whole", folder, settings, kills=most, moment=moment)


def again(tmp_path: Path, folder: Path) -> None:
    """The run was done before a kill hit it: compare it, and begin another."""
    assert not differences(tmp_path / "whole", folder)
    folder.rename(tmp_path / f"done{len(list(tmp_path.iterdir()))}")


def servers(session: Session) -> list[psutil.Process]:
    return [one for one in psutil.Process(session.process.pid).children() if "dgpo_vllm.serve" in one.cmdline()]


def has_servers(session: Session) -> bool:
    return bool(servers(session))


def both_there(session: Session) -> bool:
    return bool(ranks(session))


def ranks(session: Session) -> list[psutil.Process]:
    """The processes that train, once both are there."""
    below = psutil.Process(session.process.pid).children()
    found = [one for one in below if "_job" in one.cmdline()]
    return found if len(found) == 2 else []
