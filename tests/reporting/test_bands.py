"""Stored bands, and runs held against them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from run_factory import SAMPLING, evaluation, suite, training

from dgpo_cli.cli import main
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.reporting.bands import Judged, judge, read_band, stored_bands
from dgpo_cli.reporting.runs import find_runs

WHOLE = {
    "what": "a protocol",
    "status": "measured",
    "source": "a table",
    "found_in": "RUN/eval.jsonl, avg_at_k.value",
    "benchmarks": ["b"],
    "low": 0.4,
    "high": 0.6,
}


def band_file(tmp_path: Path, **changes: object) -> str:
    content = {key: value for key, value in {**WHOLE, **changes}.items() if value is not None}
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "mine.yml")


def judged(tmp_path: Path, runs: list[str], *, force: bool = False, **changes: object) -> list[Judged]:
    return judge(read_band(band_file(tmp_path, **changes)), find_runs(runs)[0], force=force)


def test_every_stored_band_says_where_it_is_from_and_where_its_figure_is_found() -> None:
    assert len(stored_bands()) >= 7
    for name in stored_bands():
        band = read_band(name)
        assert band.name == name
        assert 0 <= band.low < band.high <= 1
        assert band.source
        assert "avg_at_k.value" in band.found_in
        assert band.status == "measured" or "not measured by us" in band.source


def test_one_run_is_judged_by_its_interval_over_problems(tmp_path: Path) -> None:
    # 400 problems, half of them right 4 of 4: 50%, +- 4.9 points
    half = evaluation(tmp_path / "half", [4, 0] * 200)
    (one,) = judged(tmp_path, [half])
    assert (one.value, one.verdict) == (0.5, "inside")
    assert one.ci95 == pytest.approx((0.4508, 0.5492), abs=1e-3)
    assert one.sentence.startswith(f"band mine: {half}: b 50.0% [45.1, 54.9] of 1 run is inside 40.0 to 60.0 (measured")
    assert judged(tmp_path, [half], low=0.56, high=0.6)[0].verdict == "below"
    assert judged(tmp_path, [half], low=0.1, high=0.2)[0].verdict == "above"
    assert judged(tmp_path, [half], low=0.48, high=0.6)[0].verdict == "undecided"


def test_runs_that_differ_in_their_seed_are_judged_together(tmp_path: Path) -> None:
    runs = [training(tmp_path / str(seed), right, seed=seed) for seed, right in enumerate(([4, 0], [4, 1], [3, 0]))]
    (one,) = judged(tmp_path, runs)
    assert one.value == pytest.approx((4 + 5 + 3) / 24)
    half = 4.302653 * 0.125 / 3**0.5  # t(0.975, 2) * sd / sqrt(3)
    assert one.ci95 == pytest.approx((0.5 - half, 0.5 + half))
    assert "of 3 runs is undecided beside" in one.sentence


def test_of_several_benchmarks_the_mean_counts(tmp_path: Path) -> None:
    folder = suite(tmp_path / "suite", b=[4, 0] * 50, c=[4] * 50 + [0] * 50, d=[1, 1])
    (one,) = judged(tmp_path, [folder], benchmarks=["b", "c"])
    assert one.value == 0.5
    half = 1.984217 * 0.5025189 / 10  # t(0.975, 99) * sd / sqrt(100), of each
    assert one.ci95 == pytest.approx((0.5 - half / 2**0.5, 0.5 + half / 2**0.5), abs=1e-4)


def test_a_mean_with_its_spread_over_seeds_gives_the_range_of_one_more(tmp_path: Path) -> None:
    spread = {"mean": 0.5, "sd": 0.01, "seeds": 3, "low": None, "high": None}
    band = read_band(band_file(tmp_path, **spread))
    assert (band.low, band.high) == pytest.approx((0.45032, 0.54968), abs=1e-4)
    wide = read_band(band_file(tmp_path, **{**spread, "mean": 0.98}))
    assert wide.high == 1.0  # no share is above it


def test_another_temperature_is_refused_unless_forced(tmp_path: Path) -> None:
    run = evaluation(tmp_path / "e", [4, 0], sampling={**SAMPLING, "temperature": 0.6})
    with pytest.raises(ConfigError, match="temperature differs: 1 in mine"):
        judged(tmp_path, [run], temperature=1.0)
    assert judged(tmp_path, [run], temperature=1.0, force=True)[0].value == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sauce": "x"}, "unknown key sauce"),
        ({"source": None}, "source is missing"),
        ({"status": "guessed"}, "status: expected published or measured, found guessed"),
        ({"benchmarks": "b"}, "benchmarks: expected a list of names"),
        ({"low": None, "high": None}, "expected low and high, or mean, sd and seeds"),
        ({"low": None, "high": None, "mean": 0.5, "sd": 0.1, "seeds": 1}, "seeds (at least 2)"),
        ({"low": 40, "high": 60}, "low: expected a share of 1, found 40"),
        ({"low": 0.6, "high": 0.4}, "expected low below high"),
        ({"low": "much"}, "low: expected a number, found much"),
        ({"seeds": 2.5}, "seeds: expected a whole number, found 2.5"),
    ],
)
def test_a_file_that_is_no_band_is_one_error_line(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_band(band_file(tmp_path, **changes))
    assert said in str(caught.value)


def test_what_is_no_file_or_no_benchmark_of_the_runs_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file nowhere") as caught:
        read_band("nowhere")
    assert "tiny_dgpo" in caught.value.problems[0].hint
    with pytest.raises(ConfigError, match="none of the runs was evaluated on z"):
        judged(tmp_path, [evaluation(tmp_path / "e", [4])], benchmarks=["z"])


def test_the_command_says_it_in_one_line_and_in_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = evaluation(tmp_path / "half", [4, 0] * 200)
    assert main(["compare", f"runs=[{run}]", f"band={band_file(tmp_path)}", "hydra.run.dir=out"]) == 0
    said = capsys.readouterr()
    assert said.err.count("note: band mine:") == 1
    (record,) = json.loads(said.out)["band"]
    assert (record["verdict"], record["low"], record["side"]) == ("inside", 0.4, run)
    assert main(["compare", f"runs=[{run}]", "band=nowhere", "hydra.run.dir=out2"]) == 2
    assert "\nerror: band: there is no file nowhere\nhint: " in capsys.readouterr().err
