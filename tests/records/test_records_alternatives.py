"""What the models would rather have said, as fields of a stored rollout and as the page shows them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import Opener
from model_factory import save_random_model
from page_factory import write_page
from record_factory import made_up, page_data, write_rollouts
from transformers import AutoModelForCausalLM

from dgpo_cli.cli import main
from dgpo_cli.core.alternatives import Alternatives, Top, to_columns
from dgpo_cli.records.alternatives import alternative_fields
from dgpo_cli.records.stored_rollouts import read_stored


def top(ids: list[int], logprobs: list[float], ref_logprobs: list[float], rank: int) -> Top:
    return Top(torch.tensor([ids]), torch.tensor([logprobs]), torch.tensor([ref_logprobs]), torch.tensor([rank]))


def test_an_id_of_both_models_comes_once_and_keeps_both_probabilities() -> None:
    policy, reference = top([4, 9], [-0.5, -1.0], [-2.0, -0.25], 2), top([9, 1], [-1.0, -math.inf], [-0.25, -3.0], 1)
    fields = alternative_fields(to_columns(Alternatives(policy, reference)), has_reference=True, spell=str)
    assert fields == {
        "alternatives": [[4, 9, 1]],
        "alternative_logprobs": [[-0.5, -1.0, -math.inf]],
        "alternative_ref_logprobs": [[-2.0, -0.25, -3.0]],
        "alternative_tokens": {"1": "1", "4": "4", "9": "9"},
        "rank": [2],
        "ref_rank": [1],
    }


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Policy, reference, and rollouts with five alternatives."""
    base = tmp_path_factory.mktemp("alternatives")
    policy, reference = (save_random_model(base / name, seed=seed, scale=0.3) for name, seed in (("p", 1), ("q", 2)))
    (base / "rows.jsonl").write_text('{"prompt": "1 + 1 =", "answer": "2"}\n')
    command = ["rollout", f"model.path={policy}", f"reference.path={reference}", f"data.path={base / 'rows.jsonl'}"]
    command += ["rollout.max_completion_tokens=6", "rollout.group_size=2", "report=true", "mixed_rounds=0"]
    assert main([*command, "rollout.alternatives=5", f"hydra.run.dir={base / 'out'}"]) == 0
    assert main([*command, f"hydra.run.dir={base / 'plain'}"]) == 0
    return policy, reference, base


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def test_stored_alternatives_are_the_top_five_of_both_models(sampled: tuple[Path, Path, Path]) -> None:
    policy, reference, base = sampled
    models = [AutoModelForCausalLM.from_pretrained(path).double() for path in (policy, reference)]
    for record in records_of(base / "out"):
        prompt = record["prompt_token_ids"]
        with torch.no_grad():
            logits = [m(torch.tensor([prompt + record["token_ids"]])).logits[0, len(prompt) - 1 : -1] for m in models]
        p, q = (torch.log_softmax(one, dim=-1) for one in logits)
        for place, token in enumerate(record["token_ids"]):
            expected = list(dict.fromkeys([*p[place].topk(5).indices.tolist(), *q[place].topk(5).indices.tolist()]))
            assert record["alternatives"][place] == expected
            assert record["alternative_logprobs"][place] == pytest.approx(p[place, expected].tolist(), abs=1e-4)
            assert record["alternative_ref_logprobs"][place] == pytest.approx(q[place, expected].tolist(), abs=1e-4)
            for name, own in (("rank", p), ("ref_rank", q)):
                assert record[name][place] == 1 + int((own[place] > own[place, token]).sum())


def test_asking_for_them_changes_nothing_else(sampled: tuple[Path, Path, Path]) -> None:
    base = sampled[2]
    with_them, without = records_of(base / "out"), records_of(base / "plain")
    added = set(with_them[0]) - set(without[0])
    assert added == {
        *("alternatives", "alternative_logprobs", "alternative_ref_logprobs", "alternative_tokens", "rank", "ref_rank")
    }
    assert [{name: record[name] for name in without[0]} for record in with_them] == without


def test_the_page_lists_them_at_a_token(open_page: Opener, sampled: tuple[Path, Path, Path]) -> None:
    base = sampled[2]
    opened = open_page(base / "out/report.html")
    record = records_of(base / "out")[0]
    card = opened.page.locator(".rollout:visible").first
    sample = card.evaluate("card => card.rollout.sample")
    record = records_of(base / "out")[sample]
    card.locator(".tokens .t").first.hover()
    rows = opened.page.locator("#tip .alternatives tbody tr")
    shown = {row.locator("th").get_attribute("data-id"): row.locator("td").all_inner_texts() for row in rows.all()}
    assert [int(name) for name in shown if int(name) in record["alternatives"][0]] == record["alternatives"][0]
    for token, logprob in zip(record["alternatives"][0], record["alternative_logprobs"][0], strict=True):
        assert float(shown[str(token)][0].rstrip("%")) == pytest.approx(100 * math.exp(logprob), abs=0.06)
    assert opened.page.locator("#tip .alternatives tr.drawn th").get_attribute("data-id") == str(record["token_ids"][0])
    assert f"rank {record['rank'][0]}" in opened.page.locator("#tip .ranks").inner_text()
    opened.assert_clean()
    assert not open_page(base / "plain/report.html").page.locator(".alternatives").count()


def test_hostile_alternatives_are_text(open_page: Opener, tmp_path: Path) -> None:
    records = made_up(2, 2, texts=["a", "b"], group_size=2)
    for record in records:
        record["alternatives"], record["alternative_logprobs"] = [[5, 6], [5]], [[-0.1, None], [-1.0]]
        record["alternative_tokens"] = {"5": "<img src=x onerror='window.hacked=1'>"}
    opened = open_page(write_page(tmp_path, records)[0])
    opened.page.locator(".tokens .t").first.hover()
    shown = opened.page.locator("#tip .alternatives").inner_text()
    assert "<img" in shown
    assert "0%" in shown  # null: a probability of 0
    assert opened.page.evaluate("window.hacked") is None
    opened.assert_clean()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alternatives": [[1]]}, "alternatives: expected a list of ids for each of the 2 counted tokens"),
        ({"alternatives": [[1], ["x"]]}, "alternatives: expected a list of ids"),
        ({"alternative_logprobs": [[-1.0], [-1.0, -2.0]]}, "alternative_logprobs: expected a log-probability"),
        ({"alternative_logprobs": None}, "alternative_logprobs: expected a log-probability"),
        ({"rank": [0, 1]}, "rank: expected an integer of at least 1"),
        ({"alternative_tokens": {"1": 3}}, "alternative_tokens: expected the text of each id"),
    ],
)
def test_fields_that_cannot_be_shown_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    good = {"alternatives": [[1], [2]], "alternative_logprobs": [[-1.0], [None]], "alternative_tokens": {"1": "a"}}
    records = made_up(1, 2, group_size=1)
    read_stored(write_rollouts(tmp_path / "good.jsonl", [records[0] | good]))
    with pytest.raises(Exception, match=said):
        read_stored(write_rollouts(tmp_path / "bad.jsonl", [records[0] | good | change]))


def test_a_stored_step_of_a_run_holds_them_by_the_policy_that_it_was_drawn_with(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["steps=1", "rollout.prompts_per_step=4", "rollout.group_size=4", "benchmark=null", "logger=none"]
    assert main(["train", f"hydra.run.dir={run}", "rollout.alternatives=3", *small]) == 0
    records = [json.loads(line) for line in (run / "rollouts/step_000001.jsonl").read_text().splitlines()]
    scored = [record for record in records if record["logprobs"]]
    assert scored
    for record in scored:
        assert len(record["alternatives"]) == len(record["rank"]) == len(record["logprobs"])
        for place, (token, rank) in enumerate(zip(record["token_ids"], record["rank"], strict=False)):
            likeliest = record["alternative_logprobs"][place]
            assert likeliest[:3] == sorted(likeliest[:3], reverse=True)
            if rank <= 3:
                at = record["alternatives"][place].index(token)
                assert record["alternative_logprobs"][place][at] == pytest.approx(record["logprobs"][place], abs=1e-4)
            assert record["ref_rank"][place] == rank  # nothing was trained yet
    assert page_data((run / "report.html").read_text())["alternatives"] is not None
