"""Tables of a terminal of any width: words stay whole, and nothing is wider than the terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dgpo_cli.reporting.word_table import WordTable

COLUMNS = ("b", "is", "against a", "points [95%]", "p", "won/tied/lost", "time")
ROWS = [
    ["algo=dapo", "indistinguishable", "algo=grpo", "-2.2 [-9.2, +3.1]", "0.325, Holm 0.976", "9/1/15", "3 min 31 s"],
    [
        "gating.control=misplace gating=oracle_first_error",
        "better",
        "algo=grpo",
        "+1.0 [+0.2, +9]",
        "0.02",
        "9/1/1",
        "-",
    ],
]


def shown(table: WordTable, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [48, 80, 100, 140, 200])
def test_at_any_width_lines_end_between_words(width: int) -> None:
    lines = shown(WordTable(COLUMNS, ROWS, title="pairs"), width)
    assert max(map(len, lines)) <= width
    pieces = {piece for line in lines for piece in re.split(r"[│┃]", line) for piece in piece.split()}
    for word in ("indistinguishable", "oracle_first_error", "gating.control=misplace", "algo=dapo", "9/1/15", "Holm"):
        assert any(word in piece for piece in pieces), word
    for whole in ("[-9.2, +3.1]", "[+0.2, +9]", "3 min 31 s"):
        assert any(whole in line for line in lines), whole


def test_where_columns_do_not_fit_a_row_is_a_block_of_lines() -> None:
    lines = shown(WordTable(COLUMNS, ROWS), 80)
    assert lines[1].split("│")[1:3] == [" b             ", f" {ROWS[0][0]:<49} "]
    assert "│ is            │ indistinguishable " in lines[2]
    assert lines[8].startswith("├")  # between the rows
    assert shown(WordTable(COLUMNS, ROWS), 200)[1].count("┃") == len(COLUMNS) + 1


def test_a_path_ends_its_lines_after_its_folders() -> None:
    path = "/home/somebody/experiments/sweep/2026-01-01_12-00-00/0_algo-grpo_seed-0"
    lines = shown(WordTable(("run", "accuracy"), [[path, "50.0%"]]), 48)
    pieces = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert "".join(pieces) == path
    assert all(piece.endswith("/") for piece in pieces[:-1])


def test_cells_are_neither_markup_nor_control() -> None:
    text = "\n".join(shown(WordTable(("a",), [["[red]x[/red] \x1b[2J \u202e"]]), 60))
    assert "[red]x[/red]" in text
    assert "\\x1b[2J" in text
    assert "\\u202e" in text
