"""benchmarks/check.py: what holds, what does not, and that every ratio is recorded with where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import check
import pytest


def test_a_fifth_worse_is_the_most_that_holds() -> None:
    recorded = {"ratio": 2.0, "date": "2026-11-29"}
    line, held = check.judged("score", 2.4, recorded)  # 2.4 / 2 = 1.2
    assert held
    assert line == "score: 2.400, recorded 2.000 (2026-11-29), +20%: ok"
    line, held = check.judged("score", 2.42, recorded)
    assert not held
    assert line.endswith("+21%: WORSE than 1.2 times the recorded one")
    assert check.judged("score", 0.5, recorded)[1]


def test_a_ratio_that_is_not_recorded_does_not_hold() -> None:
    assert check.judged("new", 1.0, None) == ("new: 1.000, not recorded: --record does it", False)


def test_sides_take_turns_and_their_medians_are_divided() -> None:
    now, order = 0.0, []
    lasts = {"ours": iter([9.0, 3.0, 30.0, 3.5]), "base": iter([9.0, 1.0, 2.0, 20.0])}

    def side(name: str) -> None:
        nonlocal now
        order.append(name)
        now += next(lasts[name])

    # Without the first turn: the medians are 3.5 of 3, 30, 3.5 and 2 of 1, 2, 20.
    assert check.ratio_of((lambda: side("ours"), lambda: side("base")), 3, lambda: now) == 3.5 / 2
    assert order == ["ours", "base"] * 4


def test_every_ratio_is_recorded_with_its_command_and_machine() -> None:
    recorded = json.loads(check.RECORDED.read_text(encoding="utf-8"))
    assert list(recorded) == list(check.RATIOS)
    for name, entry in recorded.items():
        assert entry["ratio"] > 0
        assert f"--only {name} " in entry["command"]
        assert entry["date"] >= "2026-11-29"
        assert entry["machine"]
        assert entry["versions"].keys() == {"torch", "transformers"}


@pytest.mark.slow
def test_the_guard_fails_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recorded.json"
    asked = ["--only", "sampling", "--repeats", "1", "--recorded", str(file)]
    assert check.main([*asked, "--record"]) == 0
    recorded = json.loads(file.read_text(encoding="utf-8"))
    for factor, code in ((10.0, 0), (0.1, 1)):
        file.write_text(
            json.dumps({"sampling": recorded["sampling"] | {"ratio": factor * recorded["sampling"]["ratio"]}})
        )
        assert check.main(asked) == code
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2].split()[0] for line in said] == ["ok", "ok", "WORSE"]
