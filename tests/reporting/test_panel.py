"""The panel of a training run, line by line: what it says and that it fits."""

from __future__ import annotations

from typing import Any

import pytest

from dgpo_cli.reporting.panel import panel_lines, sparkline


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
