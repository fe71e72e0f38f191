"""The panel of a training run, line by line: what it says and that it fits."""

from __future__ import annotations

from typing import Any

import pytest

from dgpo_cli.reporting.panel import About, panel_lines, sparkline


def row(step: int, **values: Any) -> dict[str, Any]:
    return {
        "step": step,
        "accuracy": 0.5,
        "reward/mean": 0.25,
        "groups/no_spread": 0.75,
        "groups/all_correct": 0.25,
        "groups/all_wrong": 0.5,
        "completion/length_mean": 123.4,
        "completion/length_max": 200,
        "completion/truncated": 0.61,
        "entropy/mean": 0.3,
        "credit/ess": 0.99987,
        "kl/max": None,
        "hellinger/max": None,
        "grad_norm": 1.5,
        "kl": None,
        "lr": 1e-4,
        "tokens/per_second": 1000.0,
        "seconds/rollout": 6.0,
        "seconds/reward": 1.0,
        "seconds/score": 0.0,
        "seconds/train": 3.0,
        "seconds/step": 10.0,
        **{key.replace("__", "/"): value for key, value in values.items()},
    }


def shown(rows: list[dict[str, Any]], width: int = 76, height: int = 40) -> dict[str, str]:
    """The lines by their first word."""
    lines = [line.plain for line in panel_lines(rows, width=width, height=height)]
    return {line.split()[0]: line for line in lines}


def test_the_panel_tells_the_story_in_figures() -> None:
    lines = shown([row(1)])
    assert "50.0%" in lines["accuracy"]
    assert "25% mix" in lines["groups"]
    assert "all right 25%, all wrong 50%" in lines["groups"]
    assert "max 200, 61% cut off" in lines["length"]
    assert "0.3" in lines["entropy"]
    assert "0.99987" in lines["credit/ess"]
    assert "10 s rollout 60%, reward 10%, train 30%, 1000 tokens/s" in lines["step"]
    assert "kl/max" not in lines  # not measured: no line
    assert "1.5" in lines["gradient"]


def test_groups_go_by_the_spread_of_their_rewards() -> None:
    graded = shown([row(1, groups__no_spread=0.5, groups__all_correct=None, groups__all_wrong=None)])["groups"]
    assert "50% mix" in graded
    assert "equal rewards 50%" in graded
    assert "all " not in graded
    partial = shown([row(1, groups__no_spread=0.0, groups__all_correct=0.0, groups__all_wrong=1.0)])["groups"]
    assert "100% mix" in partial
    assert "equal rewards 0%" in partial
    assert "50% mix" in shown([row(1, groups__no_spread=None, groups__all_wrong=0.25)])["groups"]  # an older version's


def test_kl_stands_beside_hellinger_with_its_highest_value() -> None:
    rows = [row(step, kl__max=value, hellinger__max=0.5) for step, value in enumerate((1e-9, 423.0, 2.0), 1)]
    lines = shown(rows)
    assert "▁█▁" in lines["kl/max"]
    assert "highest 423" in lines["kl/max"]
    assert "▅▅▅" in lines["hellinger"]  # 0.5 of a scale from 0 to 1


def test_the_gradients_of_both_terms_are_shown_where_they_are_measured() -> None:
    rows = [row(1, grad_norm__policy=0.25, grad_norm__kl=4.0), row(2)]  # every n steps only
    assert "0.25" in shown(rows)["gradient"]
    assert "policy term, KL term 4" in shown(rows)["gradient"]


def test_the_four_cells_stand_as_shares_of_tokens_and_of_credit() -> None:
    cells = {"cells/high_d_low_h/tokens_pos": 0.02, "cells/high_d_low_h/credit_pos": 0.05}
    lines = [line.plain for line in panel_lines([row(1, **cells), row(2)], width=76, height=40)]
    (line,) = [line for line in lines if line.startswith("high, low")]
    assert line.split()[2:4] == ["2.0→5.0%", "-"]  # no completion with A < 0
    assert "hallucination" in line


def test_credit_that_hardly_moves_does_not_look_as_if_it_did() -> None:
    assert "██" in shown([row(1, credit__ess=1.0), row(2, credit__ess=0.9999)])["credit/ess"]
    assert "█▆" in shown([row(1, credit__ess=1.0), row(2, credit__ess=0.97)])["credit/ess"]  # of a scale from 0.9
    assert "█▁" in shown([row(1, credit__ess=1.0), row(2, credit__ess=0.5)])["credit/ess"]


def test_accuracy_tells_how_it_moved_over_ten_steps() -> None:
    rows = [row(step, accuracy=0.2) for step in range(10)] + [row(step, accuracy=0.5) for step in range(10, 20)]
    assert "+30.0 points in 10 steps" in shown(rows)["accuracy"]
    assert "points" not in shown(rows[:19])["accuracy"]


def test_a_value_that_is_none_or_not_finite_leaves_the_last_one() -> None:
    rows = [row(1, entropy__mean=0.3), row(2, entropy__mean=None), row(3, entropy__mean=float("nan"))]
    assert "0.3" in shown(rows)["entropy"]
    assert "-" in shown([row(1, accuracy=None)])["accuracy"]


FULL = row(1, kl__max=1e-11, hellinger__max=0.9, **{"cells/low_d_low_h/tokens_pos": 0.5})


@pytest.mark.parametrize("width", [20, 30, 45, 56, 76, 119, 120, 136, 200])
@pytest.mark.parametrize("height", [1, 3, 8, 40])
def test_no_terminal_is_too_small(width: int, height: int) -> None:
    lines = panel_lines([FULL] * 300, width=width, height=height)
    assert 1 <= len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
    assert lines[0].plain.startswith("accuracy")


def test_what_matters_most_stays_when_there_is_little_room() -> None:
    lines = [line.plain.split()[0] for line in panel_lines([FULL], width=76, height=4)]
    assert lines == ["accuracy", "reward", "groups", "entropy"]


def held_out(step: int, value: float, benchmark: str = "b") -> dict[str, Any]:
    average = {"k": 1, "value": value, "ci95": [value - 0.02, value + 0.02]}
    return {"step": step, "benchmark": benchmark, "avg_at_k": average, "reward": None}


def test_what_goes_on_where_and_the_latest_and_best_held_out_accuracy_stand_first() -> None:
    about = About("evaluating after step 9: 30/120, 4 s left", "out/run", [held_out(0, 0.4), held_out(5, 0.6)])
    lines = [line.plain for line in panel_lines([row(1)], about, width=76, height=40)]
    assert lines[0] == "now        evaluating after step 9: 30/120, 4 s left"
    assert " ".join(lines[1].split()) == "held out 60.0% [58.0, 62.0] after step 5, the best"
    assert lines[2] == "run        out/run"
    fallen = About("", "", [*about.evaluations, held_out(9, 0.5)])
    lines = [line.plain for line in panel_lines([row(1)], fallen, width=76, height=40)]
    assert lines[0].split() == ["now", "-"]
    assert " ".join(lines[1].split()) == "held out 50.0% [48.0, 52.0] after step 9; best 60.0% after 5"
    assert lines[2].startswith("accuracy")
    several = About("", "", [held_out(0, 0.4), held_out(0, 0.3, "c\x1b[2J")])
    lines = [line.plain for line in panel_lines([row(1)], several, width=76, height=40)]
    assert " ".join(lines[2].split()) == "held out 30.0% c\\x1b[2J [28.0, 32.0] after step 0"
    assert [line.plain for line in panel_lines([], about, width=76, height=1)] == [
        "held out       60.0% [58.0, 62.0] after step 5, the best"
    ]


def test_a_benchmark_without_right_and_wrong_shows_its_reward() -> None:
    graded = {"step": 3, "benchmark": "b", "avg_at_k": None, "reward": {"mean": 1.25, "ci95": None}}
    line = panel_lines([], About("", "", [graded]), width=76, height=1)[0].plain
    assert " ".join(line.split()) == "held out 1.25 after step 3"


def test_accuracy_and_a_reward_on_its_scale_are_one_curve() -> None:
    assert "reward" in shown([row(1)])  # 0.25 beside 50%
    same = shown([row(step, accuracy=step / 4, reward__mean=step / 4) for step in (1, 2)])
    assert "reward" not in same
    assert "= reward" in same["accuracy"]
    signed = shown([row(step, accuracy=step / 4, reward__mean=step / 2 - 1) for step in (1, 2)])
    assert "reward" not in signed
    assert "reward ±1" in signed["accuracy"]
    rising = [row(step, accuracy=0.2 + 0.3 * (step >= 10), reward__mean=0.2 + 0.3 * (step >= 10)) for step in range(20)]
    assert "= reward, +30.0 in 10 steps" in shown(rising)["accuracy"]


def test_mean_kl_and_learning_rate_have_a_line() -> None:
    lines = shown([row(1, kl=0.25, lr=5e-5)])
    assert "0.25" in lines["kl"]
    assert "mean of tokens" in lines["kl"]
    assert "5e-05" in lines["lr"]
    assert "kl" not in shown([row(1)])


def test_a_wide_terminal_gets_two_columns() -> None:
    first = panel_lines([FULL], width=136, height=40)[0].plain
    assert first.startswith("accuracy")
    assert "kl/max" in first


def test_before_the_first_step_there_is_nothing() -> None:
    assert panel_lines([], width=80, height=20) == []


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    lines = panel_lines([FULL] * 40, width=76, height=40, ascii_only=True)
    assert "".join(line.plain for line in lines).isascii()


def test_sparkline_worked_by_hand() -> None:
    assert sparkline([0.0, 0.5, 1.0], 10, low=0, high=1) == "▁▅█"
    assert sparkline([0.0, 1.0, 1.0, 1.0], 2, low=0, high=1) == "▅█"  # means 0.5 and 1
    assert sparkline([0.0, 1.0, 0.0, 0.0], 2, low=0, high=1, peaks=True) == "█▁"
    assert sparkline([None, 1.0], 2, low=0, high=1) == " █"
    assert sparkline([3.0, 3.0], 2, low=3, high=3) == "▁▁"
    assert sparkline([1.0], 0, low=0, high=1) == ""
