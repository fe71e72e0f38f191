"""`dgpo eval swap.path=B`: nothing swapped is A, everything swapped is B, and the controls swap as much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.commands import swap_test as command
from dgpo_cli.commands.eval import run as evaluate
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import BenchmarkConfig, RewardConfig, SwapConfig
from dgpo_cli.config.model_groups import ModelConfig, ReferenceConfig
from dgpo_cli.errors import ConfigError

TINY = "bundled:tiny"


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundled model with a flatter head: less sure of every token, so more often wrong."""
    from dgpo_cli.models.policy import read_policy

    folder = tmp_path_factory.mktemp("worse")
    tiny = read_policy(ModelConfig(path=TINY), "cpu").model
    tiny.model.get_output_embeddings().weight.data.mul_(0.7)
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return str(folder)


def config(path: str, swap: SwapConfig, **changes: Any) -> EvalConfig:
    return EvalConfig(
        swap=swap,
        model=ModelConfig(name="tiny", path=path, template="plain"),
        reference=ReferenceConfig(name="none"),
        reward=RewardConfig(name="exact"),
        benchmark=BenchmarkConfig(
            name="digit_chain",
            path="bundled:digit_chain",
            prompt_key="prompt",
            answer_key="completion",
            template="plain",
            reward="exact",
            max_tokens=40,
            k=2,
            limit=10,
        ),
        engine=EngineConfig(batch_size=8),
        **changes,
    )


def completions(path: str, folder: Path) -> dict[tuple[int, int], str]:
    """As an evaluation draws them."""
    evaluate([config(path, SwapConfig())], folder)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return {(row["index"], row["sample"]): row["completion"] for row in rows}


def test_nothing_swapped_is_the_writer_and_everything_swapped_the_other(
    worse: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run([config(TINY, SwapConfig(path=worse, fraction=0.1, curve=[]))], tmp_path / "swap")
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "swap" / "swap.json").read_text())
    a, b = completions(TINY, tmp_path / "a"), completions(worse, tmp_path / "b")
    assert a != b
    rows = [json.loads(line) for line in (tmp_path / "swap" / "swap_samples.jsonl").read_text().splitlines()]
    by_arm: dict[tuple[str, str], dict[tuple[int, int], str]] = {}
    for row in rows:
        by_arm.setdefault((row["way"], row["arm"]), {})[row["index"], row["sample"]] = row["completion"]
    assert by_arm["B into A", "nothing"] == by_arm["A into B", "everything"] == a
    assert by_arm["B into A", "everything"] == by_arm["A into B", "nothing"] == b
    arms = {(arm["way"], arm["arm"]): arm for arm in printed["arms"]}
    assert [arms["B into A", name]["share"] for name in ("nothing", "everything")] == [0.0, 1.0]
    for name in ("high", "random", "low"):
        assert arms["B into A", name]["share"] == pytest.approx(0.1, abs=0.05)
    high = [row for row in rows if (row["way"], row["arm"]) == ("B into A", "high")]
    random = {(r["index"], r["sample"]): r for r in rows if (r["way"], r["arm"]) == ("B into A", "random")}
    alike = [(row, random[row["index"], row["sample"]]) for row in high]
    assert all(len(x["swapped"]) == len(y["swapped"]) for x, y in alike if x["tokens"] == y["tokens"])
    assert any(x["swapped"] != y["swapped"] for x, y in alike)
    assert {"above_random", "above_low"} <= set(arms["B into A", "high"])
    assert (tmp_path / "swap" / "swap.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # two whole swap tests
def test_a_rerun_gives_the_same_and_a_model_swapped_with_itself_changes_nothing(tmp_path: Path) -> None:
    settings = [config(TINY, SwapConfig(path=TINY, fraction=0.2, curve=[]))]
    command.run(settings, tmp_path / "one")
    command.run(settings, tmp_path / "two")
    for name in command.OWNED:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    arms = json.loads((tmp_path / "one" / "swap.json").read_text())["arms"]
    assert len({arm["accuracy"]["value"] for arm in arms}) == 1
    assert all(arm["share"] == 0 for arm in arms if arm["arm"] in ("nothing", "high", "random", "low"))


def test_a_model_of_other_tokens_is_refused(random_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not share its tokens"):
        command.run([config(TINY, SwapConfig(path=str(random_model)))], tmp_path)
