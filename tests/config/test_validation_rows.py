"""`data.validation_fraction`: which benchmark a run has by it."""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.config.compose import compose
from dgpo_cli.config.idle import idle_keys

SPLIT = ["data.path=a.jsonl", "data.prompt_key=q", "data.validation_fraction=0.1", "reward.path=r.py:f"]


def test_the_rows_are_the_benchmark_read_and_sampled_as_in_training() -> None:
    made = compose("train", [*SPLIT, "rollout.max_completion_tokens=7", "benchmark.k=3"]).benchmark
    assert (made.name, made.path, made.prompt_key) == ("validation", "a.jsonl", "q")
    assert (made.validation_fraction, made.reward, made.max_tokens, made.k) == (0.1, "function", 7, 3)


def test_a_benchmark_that_is_typed_is_evaluated_and_the_split_is_idle() -> None:
    config = compose("train", [*SPLIT, "benchmark=gsm8k"])
    assert (config.benchmark.name, config.benchmark.validation_fraction) == ("gsm8k", 0.0)
    [idle] = idle_keys("train", config, {"data.validation_fraction": 0.1, "benchmark": "gsm8k"})
    assert "benchmark=gsm8k is evaluated in its place" in idle.message
    bundled = compose("train", ["data.validation_fraction=0.1"])
    assert bundled.benchmark.name == "digit_chain"
    [idle] = idle_keys("train", bundled, {"data.validation_fraction": 0.1})
    assert "has held-out problems of its own" in idle.message


def test_an_evaluation_of_the_run_finds_its_rows(tmp_path: Path) -> None:
    from dgpo_cli.config.stored import save

    save(compose("train", SPLIT), tmp_path / "config.yaml")
    model = tmp_path / "checkpoints" / "step_000001" / "model"
    model.mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest").write_text("step_000001")
    config = compose("eval", [f"model.path={tmp_path}"])
    assert (config.benchmark.name, config.benchmark.path) == ("validation", "a.jsonl")
    assert config.benchmark.validation_fraction == 0.1
