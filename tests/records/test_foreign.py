"""Files of TRL, verl and prime-rl: what is taken from each row, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from foreign_factory import trace, verl_rows, write_lines, write_trl

from dgpo_cli.errors import DataError
from dgpo_cli.records.foreign import ForeignRollout, read_foreign


def test_verl_gives_texts_scores_and_what_the_reward_function_reported(tmp_path: Path) -> None:
    found = read_foreign(write_lines(tmp_path / "4.jsonl", verl_rows()))
    assert found.trainer == "verl"
    assert found.rollouts[0] == ForeignRollout(
        "1 + 1 =", " 2", reward=1.0, step=4, parts={"overlong": -0.5}, gold="2", finish_reason="unknown"
    )
    assert [one.reward for one in found.rollouts] == [1.0, 1.0, 0.0, None]
    assert found.groups() == [[0, 2], [1, 3]]


def test_a_prompt_that_comes_in_two_steps_makes_two_groups(tmp_path: Path) -> None:
    rows = [row | {"step": step} for step in (4, 5) for row in verl_rows()]
    assert read_foreign(write_lines(tmp_path / "a.jsonl", rows)).groups() == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_trl_rewards_are_the_sum_of_its_columns_and_nan_is_no_reward(tmp_path: Path) -> None:
    found = read_foreign(write_trl(tmp_path / "completions_00010.parquet"))
    assert found.trainer == "TRL"
    first, second = found.rollouts
    assert first.prompt == (("system", "Be brief."), ("user", "1 + 1 ="))
    assert (first.completion, first.reward, first.advantage) == ("2", 1.5, 0.7)
    assert first.parts == {"right": 1.0, "brief": 0.5}
    assert (second.reward, second.parts, second.advantage) == (0.0, {"right": 0.0}, -0.7)
    assert found.groups() == [[0, 1]]


def test_an_earlier_trl_without_advantages_has_the_reward_in_a_column(tmp_path: Path) -> None:
    row = {"step": "7", "prompt": "a", "completion": "b", "reward": 0.5}
    [one] = read_foreign(write_lines(tmp_path / "a.jsonl", [row])).rollouts
    assert (one.reward, one.advantage, one.parts) == (0.5, None, {})


def test_a_trace_gives_the_ids_that_were_drawn_and_their_log_probs(tmp_path: Path) -> None:
    episode = {"traces": [trace(info={})], "prime_rl": {"group_id": "g2", "policy_version": 4}}
    path = write_lines(tmp_path / "all.jsonl", [trace()])
    assert read_foreign(path).rollouts == [
        ForeignRollout(
            (("user", "1 + 1 ="),),
            "2",
            reward=2.0,
            advantage=0.5,
            step=3,
            group="g1",
            parts={"turns": 1.0},
            finish_reason="stop",
            prompt_ids=(5, 6, 7),
            token_ids=(8, 9),
            logprobs=(-0.5, -0.25),
        )
    ]
    [inner] = read_foreign(write_lines(tmp_path / "episodes.jsonl", [episode])).rollouts
    assert (inner.group, inner.step, inner.token_ids) == ("g2", 4, (8, 9))


def test_an_earlier_row_of_prime_rl_holds_messages(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "example_id": 12,
        "prompt": [{"role": "user", "content": "1 + 1 ="}],
        "completion": [{"role": "assistant", "content": "2"}],
        "answer": "2",
        "reward": 1.0,
        "is_truncated": True,
    }
    found = read_foreign(write_lines(tmp_path / "train_rollouts.jsonl", [row]))
    assert found.trainer == "prime-rl"
    [one] = found.rollouts
    assert (one.group, one.completion, one.gold, one.reward, one.finish_reason) == ("12", "2", "2", 1.0, "length")


def test_answers_of_several_turns_are_left_out_and_counted(tmp_path: Path) -> None:
    several = trace()
    several["nodes"].append(several["nodes"][1] | {"parent": 1})
    found = read_foreign(write_lines(tmp_path / "a.jsonl", [trace(), several, several]))
    assert len(found.rollouts) == 1
    [(reason, count)] = found.left_out.items()
    assert "several turns" in reason
    assert count == 2
    with pytest.raises(DataError, match="no completion that can be used: 1 of several turns"):
        read_foreign(write_lines(tmp_path / "b.jsonl", [several]))


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (verl_rows()[0] | {"output": ["2"]}, "line 2: not as verl writes it: expected a text, found list"),
        ({"input": "1"}, "line 2: not as verl writes it: no 'output'"),
    ],
)
def test_a_row_of_another_kind_is_named_with_its_line(tmp_path: Path, spoilt: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_foreign(write_lines(tmp_path / "a.jsonl", [verl_rows()[0], spoilt]))


def test_a_file_of_no_known_form_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "1", "answer": "2"}])
    with pytest.raises(DataError, match="no known form: line 1 has the fields question, answer") as caught:
        read_foreign(path)
    assert "TRL (step+prompt+completion)" in caught.value.problems[0].hint
