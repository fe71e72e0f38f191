"""The main process orders, the others serve: two real processes, over gloo; and one that is alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from several_processes import together

from dgpo_cli.crew import Crew
from dgpo_cli.processes import SOLO


def test_others_do_their_part_of_what_the_main_one_calls_and_all_get_its_result(tmp_path: Path) -> None:
    [record] = together(Path(__file__).with_name("crew_program.py"), 2, tmp_path)
    first, second = record["everybody"]
    # (10 + 0) + (10 + 1) = 21: each process adds its rank to what the main one asked for
    assert first[0] == second[0] == [[["A0", "A1"], 21, 23], [["A0", "A1"], 41, 43], "nothing"]
    assert first[1] == second[1] == ["name a", "add 10", "add 11", "name a", "add 20", "add 21"]
    assert first[2] == second[2] == 3
    # A sum of 400 bytes: each of two sends what it has, and gets the sum. One gets what the main one has.
    assert first[3] == second[3]
    assert first[3]["signals"] == 2 * 400
    assert 1000 < first[3]["samples"] < 1100
    assert first[3]["heads"] == 0
    rows = [[[0.0]] * 3, [[1.0, 1.0]] * 3]
    assert first[4] == {
        "dealt": "for 0",
        "to_main": [{"rank": 0}, {"rank": 1}],
        "rows_to_main": rows,
        "none_to_main": [[3, 0], [3, 1]],
        "rows_from_all": rows,
    }
    assert second[4] == {
        "dealt": "for 1",
        "to_main": [],
        "rows_to_main": [],
        "none_to_main": [],
        "rows_from_all": rows,
    }
    # To the main one 3 x 2 and 3 x 1 numbers; of the rows 3 x 2 each way; a length each way before what has none.
    assert first[5] == second[5]
    assert first[6] == second[6] == [True, True]
    assert first[5]["signals"] == 4 * (6 + 3 + 2 * 6) + 2 * 16


def test_alone_an_action_simply_runs() -> None:
    assert Crew(SOLO).on_main(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        Crew(SOLO).on_main(lambda: 1 // 0)


def test_a_signal_is_told_each_time_that_they_agree() -> None:
    told: list[int] = []
    crew = Crew(SOLO, signal_number=lambda: 10, stop_agreed=told.append)
    assert [crew.go_on(True), crew.go_on(False)] == [True, False]
    assert told == [10, 10]
