"""The short form of the fault harness, which runs with all tests. test_faults_long.py is the whole."""

from __future__ import annotations

import json
import random
import resource
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from faults.harness import (
    PATIENCE,
    Session,
    at_random,
    differences,
    finish_here,
    kill_and_resume,
    last_row,
    line,
    rows,
    saved_step,
    while_saving,
)
from model_factory import save_random_model
from transformers import AutoModelForCausalLM

from dgpo_cli.cli import main

SMALL = ["rollout.prompts_per_step=4", "rollout.group_size=4", "data.size=64", "benchmark=none"]
SHORT = ["rollout.max_completion_tokens=16", "steps=2"]
QUIET = [*SMALL, "logger=none"]


def train(folder: Path, *overrides: str) -> int:
    return main(["train", f"hydra.run.dir={folder}", *QUIET, *overrides])


def test_a_run_that_is_killed_twice_is_the_run_that_was_left_alone(tmp_path: Path) -> None:
    """Refills, several updates a step, an epoch boundary; one kill at random and one while a checkpoint is written."""
    settings = [*QUIET, "algo=dapo", "gating=calibrated", "steps=8", "checkpoint.every=2", "data.size=6"]
    settings += ["algo.dynamic_sampling.max_refills=2", "optim.minibatches=2", "optim.epochs=2", "strategy.threads=1"]
    whole, killed, generator = tmp_path / "whole", tmp_path / "killed", random.Random(1)
    assert main(["train", f"hydra.run.dir={whole}", *settings]) == 0
    moments = iter([while_saving(generator, 0.03), at_random(generator, 1.0)])
    tried = kill_and_resume(
        "SIGKILL, short form",
        whole,
        killed,
        settings,
        kills=2,
        moment=lambda session: next(moments)(session),
        finish=finish_here,
    )
    assert tried >= 1
    assert sum(row["groups/refills"] for row in rows(whole)) > 0


def test_a_schedulers_signal_saves_and_a_second_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    session = Session(
        folder, f"hydra.run.dir={folder}", *QUIET, "steps=500", "checkpoint.signals=[SIGTERM,SIGINT,SIGUSR1]"
    )
    assert session.wait_for(lambda: last_row(folder) >= 2)
    for overrides in ([f"resume={folder}"], [f"hydra.run.dir={folder}", "overwrite=true"]):
        assert main(["train", *overrides]) == 2
        said = capsys.readouterr().err
        assert f"another dgpo train is at work in {folder}: process {session.process.pid} on " in said
        assert "hint: " in said
    errors = session.end(signal.SIGUSR1)
    assert session.process.returncode == 128 + signal.SIGUSR1, errors
    assert last_row(folder) == saved_step(folder) > 0
    assert not (folder / "run.lock").exists()


def kill_wandb(folder: Path) -> None:
    """Kill wandb's own process, a child of this one, once the run has two rows."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        services = [child for child in psutil.Process().children() if child.name().startswith("wandb")]
        if services and last_row(folder) >= 2:
            services[0].kill()
            return
        time.sleep(0.01)


def test_wandb_killed_in_the_middle_costs_nothing_but_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    killer = threading.Thread(target=kill_wandb, args=(folder,))
    killer.start()
    assert main(["train", f"hydra.run.dir={folder}", *SMALL, "steps=16", "logger=wandb", "logger.mode=offline"]) == 0
    killer.join()
    assert "warning: W&B stopped" in capsys.readouterr().err
    assert last_row(folder) == 16
    assert len(json.loads((folder / "run.json").read_text())["wandb_run"]) == 8


def test_a_disk_that_is_full_ends_the_run_in_one_line_and_it_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here files cannot be larger than 2 MB: the weights take 1.4, the optimizer's state 2.7."""
    settings = [*QUIET, "steps=4", "checkpoint.every=2", "rollout.save=all", "strategy.threads=1"]
    whole, starved = tmp_path / "whole", tmp_path / "starved"
    assert main(["train", f"hydra.run.dir={whole}", *settings]) == 0

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        assert main(["train", f"hydra.run.dir={starved}", *settings]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(lines) == 1
    assert "checkpoints/step_000002 could not be written: File too large (4," in lines[0]
    assert last_row(starved) == 2
    assert saved_step(starved) == 0
    finish_here(starved, settings)
    assert not differences(whole, starved)


# What a reward may do, the exit code, and what is said: 2 where its trial at the start shows it already.
REWARDS = {
    "raises later": ("return (1.0, True) if completion == answer else 1 / 0", 1, "ZeroDivisionError"),
    "nan": ("return float('nan')", 2, "returned float nan"),
    "infinite later": ("return 0.5 if completion == answer else float('inf')", 1, "returned float inf"),
    "text": ("return 'right'", 2, "returned str 'right'"),
    "none": ("return None", 2, "returned NoneType None"),
    "three values": ("return 1.0, True, 'why'", 2, "returned tuple"),
    "huge": ("return 10 ** 5000", 2, "returned int"),
    "hostile": (
        "return type('F', (float,), {'__float__': lambda self: 1 / 0, '__repr__': lambda self: 1 / 0})(1.0)",
        2,
        "ZeroDivisionError",
    ),
    "exits": ("import os; os._exit(0)", 2, "its process died"),
}


@pytest.mark.parametrize("kind", REWARDS)
def test_a_reward_that_is_none_ends_the_run_with_prompt_and_completion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    body, code, said = REWARDS[kind]
    (tmp_path / "reward.py").write_text(f"def score(prompt, completion, answer):\n    {body}\n")
    entry = line("reward that is none")
    entry.tried += 1
    assert train(tmp_path / "run", "steps=2", f"reward.path={tmp_path / 'reward.py'}:score") == code
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    for part in (said, "prompt '", "completion '"):
        assert part in errors[0]
    entry.survived += 1


def test_a_reward_that_lies_or_hangs_is_taken_at_its_word_and_its_deadline(tmp_path: Path) -> None:
    """Right for what is wrong, True as a number, and now and then asleep: nothing that the run could know better."""
    (tmp_path / "reward.py").write_text(
        "import time\n"
        "def score(prompt, completion, answer):\n"
        "    if completion != answer and sum(map(ord, completion)) % 5 == 0:\n"
        "        time.sleep(60)\n"
        "    return True, completion != answer\n"
    )
    overrides = [f"reward.path={tmp_path / 'reward.py'}:score", "reward.timeout_seconds=0.3"]
    assert train(tmp_path / "run", "steps=1", *overrides) == 0
    found = rows(tmp_path / "run")[0]
    assert found["reward/timeouts"] > 0
    assert found["accuracy"] is not None


def test_rewards_of_1e38_skip_updates_and_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reward.py").write_text(
        "def score(prompt, completion, answer):\n    return 1e38 if sum(map(ord, completion)) % 2 else -1e38\n"
    )
    overrides = ["steps=6", "algo=grpo", "algo.scale_rewards=none", f"reward.path={tmp_path / 'reward.py'}:score"]
    assert train(tmp_path / "run", *overrides) == 1
    said = capsys.readouterr().err
    assert "3 updates in a row had a gradient that was not finite" in said
    assert list((tmp_path / "run/rollouts").glob("nonfinite_step_*.jsonl"))


def test_a_model_with_a_nan_ends_at_its_first_rollout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_random_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(folder)
    assert train(tmp_path / "run", f"model.path={folder}", "data=digit_chain", *SHORT) == 1
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert "the model's logits are not numbers" in errors[0]
