"""What a command says that it does first."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgpo_cli import hub_access
from dgpo_cli.config.beginning import beginning, refuse_without_the_hub
from dgpo_cli.config.compose import compose
from dgpo_cli.errors import DataError


@pytest.mark.parametrize(
    ("command", "overrides", "said"),
    [
        ("train", [], "loading tiny"),
        ("train", ["model=qwen0_5b"], "fetching Qwen/Qwen2.5-0.5B"),
        ("eval", ["benchmark=aime2024", "benchmark.completions=c.jsonl"], "grading c.jsonl"),
        ("eval", ["engine=openai", "engine.url=http://h/v1"], "asking http://h/v1"),
        ("compare", ["runs=[a,b]"], "reading a, b"),
    ],
)
def test_it_is_said_what_is_done(
    command: str, overrides: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert beginning(command, [compose(command, overrides)]) == said


def test_without_a_hub_a_model_that_is_not_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub_access.hub_answers.cache_clear()
    refuse_without_the_hub("train", [compose("train", [])])
    config = compose("train", ["model=qwen0_5b"])
    with pytest.raises(DataError, match="the hub gave no answer"):
        refuse_without_the_hub("train", [config])
    (tmp_path / "models--Qwen--Qwen2.5-0.5B" / "snapshots").mkdir(parents=True)
    assert beginning("train", [config]) == "loading qwen0_5b"
    refuse_without_the_hub("train", [config])
