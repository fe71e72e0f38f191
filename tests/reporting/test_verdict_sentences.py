"""Verdicts in words: one sentence each, and one for all pairs of which the same is said."""

from __future__ import annotations

from pathlib import Path

from run_factory import evaluation

from dgpo_cli.reporting.comparison import compare
from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.verdict_sentences import gap_text, sentences


def said(tmp_path: Path, *rights: list[int]) -> list[str]:
    """Sentences on evaluations that are called a, b, c ..."""
    names = [evaluation(tmp_path / name, right) for name, right in zip("abcd", rights, strict=False)]
    pairs, _ = compare(find_runs(names)[0], alpha=0.05, seed=0, force=False)
    return ["".join(one.parts).replace(f"{tmp_path}/", "") for one in sentences(pairs, 0.05)]


def test_one_pair_is_one_sentence(tmp_path: Path) -> None:
    assert said(tmp_path / "1", [0] * 7, [1] * 7) == ["b is better than a by 25.0 points"]
    assert said(tmp_path / "2", [1, 2], [1, 2]) == ["b cannot be told from a (no difference seen)"]


def test_what_is_ahead_of_several_is_said_in_one_sentence(tmp_path: Path) -> None:
    # c is ahead of both by p = 2/2^8; a and b are equal
    first, second = said(tmp_path, [0] * 8, [0] * 8, [2] * 8)
    assert first == "b cannot be told from a (no difference seen)"
    assert second == "c is better than a by 50.0 points and than b by 50.0 points"


def test_what_cannot_be_told_apart_is_said_of_all_pairs_at_once(tmp_path: Path) -> None:
    (one,) = said(tmp_path / "1", [1, 2, 3], [1, 2, 3], [1, 2, 3])
    assert one == "In all 3 pairs of a, b and c one cannot be told from the other (no difference seen)"
    (spread,) = said(tmp_path / "2", [1, 2, 3, 1], [1, 3, 3, 1], [1, 2, 4, 3])
    assert spread.startswith("In all 3 pairs of a, b and c one cannot be told from the other (differences from +6.2 to")


def test_a_difference_that_is_small_is_not_called_none() -> None:
    assert (gap_text(0.0), gap_text(-0.031), gap_text(0.00001)) == ("no difference seen", "3.1 points", "0.001 points")
