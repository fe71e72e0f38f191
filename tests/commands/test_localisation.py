"""`dgpo eval study=localisation` from its configuration to its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.commands import localisation as command
from dgpo_cli.commands.eval import run as evaluate
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import BenchmarkConfig, RewardConfig, Study
from dgpo_cli.config.model_groups import ModelConfig, ReferenceConfig
from dgpo_cli.data.digit_chain import first_wrong_index
from dgpo_cli.errors import ConfigError

NO_REFERENCE = ReferenceConfig(name="none")


def config(reference: ReferenceConfig = NO_REFERENCE, *, k: int = 2, **changes: Any) -> EvalConfig:
    return EvalConfig(
        study=Study.localisation,
        model=ModelConfig(name="tiny", path="bundled:tiny", template="plain"),
        reference=reference,
        reward=RewardConfig(name="exact"),
        benchmark=BenchmarkConfig(
            name="digit_chain",
            path="bundled:digit_chain",
            prompt_key="prompt",
            answer_key="completion",
            template="plain",
            reward="exact",
            max_tokens=40,
            k=k,
            limit=12,
        ),
        engine=EngineConfig(batch_size=8),
        **changes,
    )


def table(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    record = json.loads((folder / "localisation.json").read_text())
    return {(row["kind"], row["name"]): row for row in record["rows"]}


def test_the_samples_are_those_of_an_evaluation_and_each_wrong_token_is_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run([config()], tmp_path / "study")
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "study" / "localisation.json").read_text())
    evaluate([config()], tmp_path / "eval")
    samples = [json.loads(line) for line in (tmp_path / "eval" / "samples.jsonl").read_text().splitlines()]
    by_key = {(one["index"], one["sample"]): one for one in samples}
    found = [json.loads(line) for line in (tmp_path / "study" / "wrong_tokens.jsonl").read_text().splitlines()]
    assert len(found) == sum(not one["correct"] for one in samples) == printed["n_wrong"] > 3
    for one in found:
        sample = by_key[one["prompt"], one["sample"]]
        assert "".join(one["tokens"]) == sample["completion"]
        assert one["wrong"] == first_wrong_index(sample["completion"], sample["gold"])  # a character is a token here


def test_uniform_credit_is_no_better_than_chance_and_a_gating_without_its_needs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run([config(k=1)], tmp_path)
    rows = table(tmp_path)
    measured = ("precision_at_1", "reciprocal_rank", "share")
    for name in measured:
        assert rows["gating", "uniform"][name] == rows["floor", "random"][name]
    left_out = json.loads((tmp_path / "localisation.json").read_text())["left_out"]
    assert {"paper", "gmts"} <= set(left_out)
    assert "left out: paper: it is measured from a reference" in capsys.readouterr().err


def test_with_a_reference_distances_are_looked_at_and_a_rerun_gives_the_same(
    tmp_path: Path, random_model: Path
) -> None:
    from dgpo_cli.models.policy import read_policy

    reference = tmp_path / "reference"
    tiny = read_policy(ModelConfig(path="bundled:tiny"), "cpu").model
    tiny.model.get_output_embeddings().weight.data.mul_(0.9)
    tiny.model.save_pretrained(reference)
    tiny.tokenizer.save_pretrained(reference)
    settings = config(ReferenceConfig(name="path", path=str(reference)), gatings=["paper", "uniform"])
    command.run([settings], tmp_path / "a")
    command.run([settings], tmp_path / "b")
    assert {("signal", "hellinger"), ("signal", "kl"), ("gating", "paper")} <= set(table(tmp_path / "a"))
    cells = json.loads((tmp_path / "a" / "localisation.json").read_text())["cells"]
    assert sum(one["wrong"]["value"] for one in cells) == pytest.approx(1.0)
    assert sum(one["tokens"]["value"] for one in cells) == pytest.approx(1.0)
    assert (tmp_path / "a" / "localisation.json").read_bytes() == (tmp_path / "b" / "localisation.json").read_bytes()


def test_a_named_gating_that_lacks_what_it_needs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gatings: paper: it is measured from a reference"):
        command.run([config(gatings=["paper"])], tmp_path)
    with pytest.raises(ConfigError, match="gatings: gmts: it goes by the advantage"):
        command.run([config(gatings=["gmts"], k=1)], tmp_path)


def test_a_folder_with_a_study_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "localisation.json").write_text("{}")
    with pytest.raises(ConfigError, match="exists already"):
        command.run([config()], tmp_path)
    command.run([config(overwrite=True)], tmp_path)
    assert table(tmp_path)
