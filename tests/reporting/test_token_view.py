"""Tokens on a terminal: colours, and marks where there are none."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from record_factory import made_up, write_rollouts

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.records.regated import regate
from dgpo_cli.records.stored_rollouts import StoredRollouts, read_stored
from dgpo_cli.reporting.clean_console import CleanConsole
from dgpo_cli.reporting.token_view import Shading, print_rollouts


def printed(stored: StoredRollouts, *, shade_by: str, gatings: list[str], color: bool = False) -> str:
    stream = io.StringIO()
    system = "truecolor" if color else None
    console = CleanConsole(file=stream, color_system=system, force_terminal=color, width=200)
    print_rollouts(stored, regate(stored, {name: gating_option(name) for name in gatings}), console, shade_by=shade_by)
    return stream.getvalue()


@pytest.fixture
def stored(tmp_path: Path) -> StoredRollouts:
    """One rollout of four tokens, credit by top_entropy with its top fifth: 4 on the second, 0 elsewhere."""
    [record] = made_up(1, 4, texts=["a", "b", "c", "d"])
    record |= {"entropy": [0.0, 1.0, 0.5, 0.26], "advantage": -1.0}
    return read_stored(write_rollouts(tmp_path / "rollouts.jsonl", [record]))


def test_without_colours_marks_say_how_far_from_one(stored: StoredRollouts) -> None:
    text = printed(stored, shade_by="credit", gatings=["top_entropy"])
    assert "  a‹‹‹b›››c‹‹‹d‹‹‹\n" in text
    assert "credit: token‹ below 0.98" in text
    assert "credit by top_entropy: 0 to 4; most on 'b' at 1 (4)" in text


def test_each_gating_has_a_line_of_its_own(stored: StoredRollouts) -> None:
    text = printed(stored, shade_by="credit", gatings=["uniform", "top_entropy"])
    assert text.index("  abcd\n") < text.index("  a‹‹‹b›››c‹‹‹d‹‹‹\n")


def test_another_signal_is_shaded_from_zero_by_quarters_of_its_95th_percentile(stored: StoredRollouts) -> None:
    # 95th percentile of 0, 0.26, 0.5, 1: 0.5 + 0.85 (1 - 0.5) = 0.925, so the quarters are 0.231, 0.4625, 0.694.
    assert "  ab›››c››d›\n" in printed(stored, shade_by="entropy", gatings=["top_entropy"])


def test_credit_times_a_negative_advantage_is_marked_below(stored: StoredRollouts) -> None:
    assert "  ab‹‹‹cd\n" in printed(stored, shade_by="advantage", gatings=["top_entropy"])


def test_with_colours_a_token_is_shaded_and_not_marked(stored: StoredRollouts) -> None:
    text = printed(stored, shade_by="credit", gatings=["top_entropy"], color=True)
    assert "\x1b[38;2;0;0;0;48;2;230;97;1mb\x1b[0m" in text  # orange
    assert "\x1b[38;2;255;255;255;48;2;31;78;158ma\x1b[0m" in text  # blue
    assert "›" not in text


def test_white_space_is_drawn_within_its_shade(tmp_path: Path) -> None:
    [record] = made_up(1, 5, texts=["a", "\n", " b", "c\n\n", ""])
    record["entropy"] = [0.0, 4.0, 4.0, 4.0, 4.0]
    stored = read_stored(write_rollouts(tmp_path / "rollouts.jsonl", [record]))
    marked = printed(stored, shade_by="entropy", gatings=["uniform"])
    assert "  a⏎›››\n·b›››c⏎\n⏎›››\n∅›››\n" in marked
    shaded = printed(stored, shade_by="entropy", gatings=["uniform"], color=True)
    start, end = "\x1b[38;2;255;255;255;48;2;91;58;148m", "\x1b[0m"
    assert f"  a{start}⏎{end}\n{start}·b{end}" in shaded


def test_rollouts_of_a_prompt_stand_as_on_the_page(tmp_path: Path) -> None:
    """Right before wrong, the higher reward first, in whatever order the file has them; a prompt's stay together."""
    records = made_up(8, 2, group_size=4)
    verdicts = [(0.5, False), (1.0, True), (0.0, False), (0.9, True), (0.0, False), (1, True), (1, True), (0, False)]
    for record, (reward, correct) in zip(records, verdicts, strict=True):
        record |= {"reward": reward, "correct": correct}
    mixed = [records[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    text = printed(
        read_stored(write_rollouts(tmp_path / "rollouts.jsonl", mixed)), shade_by="credit", gatings=["uniform"]
    )
    lines = [line.split(":")[0].strip() for line in text.splitlines() if line.startswith(("prompt", "  sample"))]
    first = ["prompt problem 0", "sample 1", "sample 3", "sample 0", "sample 2"]
    assert lines == [*first, "prompt problem 1", "sample 1", "sample 2", "sample 0", "sample 3"]


def test_levels_are_those_of_the_legend() -> None:
    shading = Shading("credit", None, "ratio", 1.0)  # type: ignore[arg-type]
    bounds = {0.4: -3, 0.7: -2, 0.9: -1, 0.99: 0, 1.0: 0, 1.1: 1, 1.5: 2, 3.0: 3}
    assert {value: shading.level(value) for value in bounds} == bounds
