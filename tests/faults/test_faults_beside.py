"""Kills of a run of four processes whose checkpoints are written while it trains, with a vocabulary of 151,936."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from faults.harness import at_random, finish, kill_and_resume, rows, while_saving
from model_factory import save_random_model

pytestmark = pytest.mark.slow

# Of ids, not of text: the tokenizer spells a few hundred of them alone.
SCORES = "[float(sum(ids) % 7) for ids in completion_ids]"
REWARD = f"def score(prompts, completions, completion_ids, **columns):\n    return {SCORES}\n"


def test_a_wide_model_saved_beside_by_four_processes_is_killed_and_resumed_exactly(tmp_path: Path) -> None:
    """The launcher is killed and its workers with it: at random, and while files are written beside a step."""
    (tmp_path / "reward.py").write_text(REWARD)
    model = save_random_model(tmp_path / "model", vocab_size=151_936, hidden_size=64)
    settings = [
        *("logger=none", "benchmark=none", "data=digit_chain", "data.size=64", "rollout.save=none"),
        *(f"model.path={model}", f"reward.path={tmp_path / 'reward.py'}:score", "reward.workers=1"),
        *("rollout.prompts_per_step=1", "rollout.group_size=4", "rollout.max_completion_tokens=6"),
        *("strategy=fsdp", "strategy.num_processes=4", "strategy.device=cpu", "strategy.stall_seconds=600"),
        *("steps=6", "checkpoint.every=1", "checkpoint.beside=true", "checkpoint.keep=2"),
    ]
    whole, killed, generator = tmp_path / "whole", tmp_path / "killed", random.Random(7)
    finish(whole, settings)
    assert all(row["grad_norm"] > 0 for row in rows(whole))  # else every checkpoint would be alike
    moments = iter([while_saving(generator, 0.5), while_saving(generator, 0.5), at_random(generator, 4.0)])
    tried = kill_and_resume(
        "SIGKILL of four processes that save beside",
        whole,
        killed,
        settings,
        kills=3,
        moment=lambda session: next(moments)(session),
    )
    assert tried >= 2
