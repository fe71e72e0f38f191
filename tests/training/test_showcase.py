"""What W&B is shown of a step is bounded, and the run's name says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_factory import made_up, page_credit, page_data

from dgpo_cli.config.compose import compose
from dgpo_cli.config.gatings import gating_option
from dgpo_cli.records.regated import regate
from dgpo_cli.records.stored_rollouts import rollouts_at_hand
from dgpo_cli.training.showcase import COLUMNS, TABLE_CHARACTERS, completion_rows, run_name, shown_name, step_page
from dgpo_cli.training.tracker import story


def test_a_table_holds_16_rows_spread_over_the_step_and_cuts_long_text() -> None:
    records = made_up(64, 3)
    records[60]["completion"] = "a" * 5000 + "b" * 5000
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in completion_rows(7, records)]
    assert [row["prompt_id"] for row in rows[:5]] == ["problem 0", "problem 0", "problem 1", "problem 1", "problem 2"]
    assert len(rows) == 16
    assert {row["step"] for row in rows} == {7}
    half = TABLE_CHARACTERS // 2
    assert rows[15]["completion"] == "a" * half + "\n... 8000 characters ...\n" + "b" * half
    assert len(completion_rows(1, records[:3])) == 3
    assert completion_rows(1, []) == []


def test_a_table_names_the_token_with_the_most_credit() -> None:
    [record] = made_up(1, 3, texts=["a", "b", "c"])
    row = dict(zip(COLUMNS, completion_rows(1, [record | {"credit": [0.5, 2.0, 0.5]}])[0], strict=True))
    assert (row["credit_max"], row["credit_max_token"], row["tokens"]) == (2.0, "b", 3)
    row = dict(zip(COLUMNS, completion_rows(1, [record | {"credit": None}])[0], strict=True))
    assert (row["credit_max"], row["credit_max_token"]) == (None, None)


def test_a_page_holds_64_rollouts_or_65536_tokens() -> None:
    def shown(count: int, tokens: int) -> int:
        page = step_page(3, made_up(count, tokens), gating_option("paper"))
        data = page_data(page)
        assert [item["label"] for item in data["gatings"]] == ["paper", "calibrated"]
        return len(data["rollouts"])

    assert shown(70, 2) == 64
    assert shown(3, 30_000) == 2
    assert shown(2, 70_000) == 1


@pytest.mark.parametrize("name", ["calibrated", "surprisal", "random", "top_entropy"])
def test_credit_on_the_page_is_that_of_the_whole_step(name: str) -> None:
    """Rollouts beyond the page's 64 have large signals: percentiles of the 64 alone would give other credit."""
    records = made_up(96, 12)
    for record in records[64:]:
        for signal in ("logprobs", "entropy", "hellinger"):
            record[signal] = [min(1.0, 20 * value) for value in record[signal]]
    stored = rollouts_at_hand(records, "step 1")
    [whole] = regate(stored, {name: gating_option(name)})
    page = step_page(1, records, gating_option(name))
    assert page_credit(page)[name] == whole.credit.weights[:64].tolist()
    assert page_data(page)["source"] == "step 1, the first 64 of 96 rollouts"


def test_a_run_is_named_by_algorithm_gating_model_data_and_seed() -> None:
    assert run_name(compose("train", ["seed=3"])) == "dgpo-paper-tiny-digit_chain-3"
    named = ["model.path=some/folder/qwen", "data.path=data/sums.jsonl", "algo=dapo"]
    assert run_name(compose("train", named)) == "dapo-uniform-qwen-sums-0"


def test_the_same_run_made_twice_has_two_names() -> None:
    config, start = compose("train", ["seed=3"]), "2026-11-23T09:10:00+0000"
    assert shown_name(config, Path("outputs/train/x"), start) == "dgpo-paper-tiny-digit_chain-3-1123-091000"
    config = compose("train", ["name=my run"])
    assert shown_name(config, Path("outputs/train/my-run"), start) == "my run"
    assert shown_name(config, Path("outputs/train/my-run_2"), start) == "my run_2"


def test_the_story_comes_in_order_and_leaves_out_what_is_not_known() -> None:
    row = {"step": 1, "accuracy": 0.5, "kl": None, "credit/ess": 0.9, "lr": 1e-6}
    assert story(row) == {"0_story/01_accuracy": 0.5, "0_story/08_credit_ess": 0.9}
    assert story({"step": 1, "eval/x/avg_at_k": 0.5}) == {}
