"""The model card: recipe, seed, benchmark and interval, and nothing of the machine."""

from __future__ import annotations

from typing import Any

import yaml

from dgpo_cli.config.compose import compose
from dgpo_cli.reporting.model_card import model_card

RUN = {"version": "9.9", "versions": {"torch": "2.13.0"}, "command": "dgpo train engine.api_key_env=SECRET"}
ROWS: list[dict[str, Any]] = [
    {"benchmark": "gsm8k", "step": step, "n_problems": 100, "avg_at_k": {"k": 4, "value": value, "ci95": [0.4, 0.6]}}
    for step, value in ((0, 0.45), (10, 0.5), (20, 0.55))
]


def card(*overrides: str, rows: list[dict[str, Any]] = ROWS) -> str:
    return model_card(compose("train", list(overrides)), RUN, rows, step=20)


def test_it_states_recipe_seed_benchmark_and_interval_before_and_after() -> None:
    text = card("model=qwen0_5b", "seed=7", "gating=calibrated", "optim.lr=3e-6")
    for line in ("| seed | 7 |", "| algo, gating | dgpo, calibrated |", "| dgpo | 9.9 |", "With torch 2.13.0."):
        assert line in text
    assert "| learning rate | 3e-06, constant" in text
    assert "| gsm8k | 0 | 100 | avg@4 45.0% [40.0, 60.0] |" in text
    assert "| gsm8k | 20 | 100 | avg@4 55.0% [40.0, 60.0] |" in text
    assert "| gsm8k | 10 |" not in text


def test_its_front_matter_is_what_the_hub_reads() -> None:
    front = yaml.safe_load(card("model=qwen0_5b", "model.lora.rank=8").split("---")[1])
    assert front["library_name"] == "peft"
    assert front["base_model"] == "Qwen/Qwen2.5-0.5B"
    assert yaml.safe_load(card().split("---")[1])["library_name"] == "transformers"
    assert "base_model" not in yaml.safe_load(card().split("---")[1])


def test_paths_and_commands_of_this_machine_stay_here() -> None:
    text = card(
        "model.path=/home/somebody/models/mine",
        "data.path=/secret/rows.jsonl",
        "reward.path=/home/somebody/my.py:graded",
    )
    for private in ("somebody", "/secret", "SECRET", "api_key"):
        assert private not in text
    for name in ("`mine`", "rows.jsonl", "my.py"):
        assert name in text


def test_a_quantised_base_is_named_and_a_run_without_evaluation_says_so() -> None:
    text = card("model.lora.rank=8", "model.quantization=nf4", rows=[])
    assert "a base quantised to nf4 by bitsandbytes" in text
    assert "None was made in training." in text
