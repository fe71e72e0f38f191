"""Numbers as a person reads them; cells are never markup."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from dgpo_cli.reporting.tables import (
    clock,
    confidence,
    duration,
    interval,
    make_table,
    p_text,
    percent,
    points,
    sampling_text,
    show,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (1.23, "1.2 s"), (59.4, "59 s"), (61.5, "1 min 02 s"), (3599.6, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_has_hours_only_if_there_are_some() -> None:
    assert [clock(seconds) for seconds in (5, 100, 3599.6, 7300)] == ["0:05", "1:40", "1:00:00", "2:01:40"]


def test_shares_differences_and_intervals() -> None:
    assert (percent(0.1234), percent(None)) == ("12.3%", "-")
    assert (points(0.025), points(-0.5), points(None)) == ("+2.5", "-50.0", "-")
    assert interval((0.1, 0.25)) == "[10.0, 25.0]"
    assert interval((-0.1, 0.25), signed=True) == "[-10.0, +25.0]"
    assert interval(None) == "-"


def test_what_is_shown_is_on_the_side_of_0_and_of_the_level_on_which_it_is() -> None:
    assert interval((0.0004, 0.25), signed=True) == "[+0.04, +25.0]"
    assert interval((-0.25, -0.00001), signed=True) == "[-25.0, -0.001]"
    assert interval((0.0, 0.25), signed=True) == interval((-0.0, 0.25), signed=True) == "[0.0, +25.0]"
    assert (p_text(0.04996, 0.05), p_text(0.05, 0.05), p_text(0.0159, 0.05)) == ("0.04996", "0.05", "0.0159")
    assert (confidence(0.05), confidence(0.05 / 3), confidence(0.01)) == ("95%", "98.3%", "99%")


def test_the_sampling_preset_in_words() -> None:
    assert sampling_text({"temperature": 0.6, "top_p": 0.95, "max_tokens": 8}) == "T=0.6 top_p=0.95 max_tokens=8"
    assert sampling_text({"temperature": 0.0, "top_p": 1.0, "max_tokens": 8}) == "greedy max_tokens=8"
    assert sampling_text({"temperature": None}) == "stored completions"


def test_cells_are_shown_as_they_are() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(make_table(("run [bold]",), [["out/[red]a[/red]"]], title="[x]"))
    assert "out/[red]a[/red]" in stream.getvalue()
    assert "run [bold]" in stream.getvalue()
    assert "[x]" in stream.getvalue()


def test_a_pipe_gets_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    show([make_table(("a",), [["1"]])], {"a": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}
    with pytest.raises(ValueError):
        show([], {"a": float("nan")})
