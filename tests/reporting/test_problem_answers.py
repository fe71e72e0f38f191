"""What both sides answered to a problem, from their samples."""

from __future__ import annotations

from pathlib import Path

from run_factory import evaluation, samples

from dgpo_cli.reporting.problem_answers import answers_of, longest_text, shortened, shown
from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.sides import Side, sides

KEY = (0, "p0")


def side(folder: Path, completions: list[list[tuple[str, bool]]]) -> Side:
    run = evaluation(folder, [sum(right for _, right in own) for own in completions])
    samples(run, completions)
    return sides(find_runs([run])[0])[0]


def test_answers_are_counted_and_the_completion_that_decides_is_shown(tmp_path: Path) -> None:
    a = answers_of(side(tmp_path / "a", [[("7", True), ("8", False), ("8", False), ("", False)], [("x", True)]]), {KEY})
    b = answers_of(side(tmp_path / "b", [[("7", True), ("7", True), ("9", False), ("7", True)]]), {KEY})
    assert a.keys() == b.keys() == {KEY}  # the other problem is not asked about
    found = shown(a[KEY], b[KEY], b_won=True, longest=100)
    assert found is not None
    assert (found["prompts"], found["gold"]) == (["What is 0?"], "gold 0")
    of_a, of_b = found["sides"]
    assert [(one["text"], one["right"], one["count"]) for one in of_a["answers"]] == [
        ("8", False, 2),
        ("7", True, 1),
        (None, False, 1),
    ]
    assert (of_a["right"], of_a["completion"]) == (False, "8")  # a is behind: a wrong one
    assert (of_b["right"], of_b["completion"]) == (True, "7")
    lost = shown(a[KEY], b[KEY], b_won=False, longest=100)
    assert lost is not None
    assert [one["completion"] for one in lost["sides"]] == ["7", "9"]


def test_without_samples_there_is_nothing_to_show(tmp_path: Path) -> None:
    run = evaluation(tmp_path / "a", [1])
    assert answers_of(sides(find_runs([run])[0])[0], {KEY}) == {}
    assert shown(None, None, b_won=True, longest=100) is None


def test_a_line_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    one = side(tmp_path / "a", [[("7", True)]])
    with (tmp_path / "a" / "samples.jsonl").open("a") as stream:
        stream.write('[1]\n{"index": 0, "prob')
    assert answers_of(one, {KEY})[KEY].counts.total() == 1


def test_long_texts_lose_their_middle_and_act_on_nothing() -> None:
    assert shortened("a" * 10 + "b" * 10, 8) == "aaaa\n… 12 characters …\nbbbb"
    assert shortened("x\u202ey\x1b[2J\n\tz", 100) == "x\\u202ey\\x1b[2J\n\tz"
    assert longest_text(10) == 2000
    assert longest_text(4000) == 500
    assert longest_text(10**6) == 300
