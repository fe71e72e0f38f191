"""samples.jsonl survives kills, odd text and a second process; everything written is strict JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.evaluation.sample_file import SampleFile, clear, make_folder, write_json


def record(index: int, sample: int, text: str = "x") -> dict[str, object]:
    return {"index": index, "sample": sample, "completion": text}


def test_records_come_back_by_problem_and_sample(tmp_path: Path) -> None:
    with SampleFile(tmp_path / "samples.jsonl") as samples:
        samples.append([record(0, 0), record(1, 0)])
        samples.append([record(0, 1)])
    with SampleFile(tmp_path / "samples.jsonl") as samples:
        assert list(samples.records) == [(0, 0), (1, 0), (0, 1)]


def test_sorted_records_lie_in_that_order_on_disk_and_more_can_be_added(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as samples:
        samples.append([record(1, 0), record(0, 1), record(0, 0)])
        samples.sort([(0, 0), (1, 0), (0, 1)])
    with SampleFile(path) as samples:
        assert list(samples.records) == [(0, 0), (1, 0), (0, 1)]
        samples.append([record(1, 1)])
    assert len(path.read_bytes().splitlines()) == 4


def test_an_order_that_leaves_a_record_out_moves_nothing(tmp_path: Path) -> None:
    with SampleFile(tmp_path / "samples.jsonl") as samples:
        samples.append([record(1, 0), record(0, 0)])
        samples.sort([(0, 0)])
    with SampleFile(tmp_path / "samples.jsonl") as samples:
        assert list(samples.records) == [(1, 0), (0, 0)]


def test_a_line_that_a_kill_cut_short_is_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"index": 0, "sample": 0}\n{"index": 1, "sam')
    with SampleFile(path) as samples:
        assert list(samples.records) == [(0, 0)]
        samples.append([record(1, 0)])
    lines = path.read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1]


@pytest.mark.parametrize("text", ["a\nb\r\u2028c", "\x00", "\ud800 half a pair", "\u202e\U0001f600", '"\\'])
def test_any_text_makes_one_line_and_comes_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as samples:
        samples.append([record(0, 0, text)])
    assert path.read_bytes().count(b"\n") == 1
    with SampleFile(path) as samples:
        assert samples.records[0, 0]["completion"] == text


@pytest.mark.parametrize("line", ["not json", "[1]", '{"index": 3}'])
def test_a_line_that_is_no_sample_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"index": 0, "sample": 0}\n' + line + "\n")
    with pytest.raises(DataError, match=r"samples.jsonl line 2: expected a sample"):
        SampleFile(path)


def test_two_evaluations_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with SampleFile(path), pytest.raises(ConfigError, match="another evaluation is writing here"):
        SampleFile(path)
    with SampleFile(path) as samples:  # free again
        assert samples.records == {}


def test_json_is_strict_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"value": 0.5})
    with pytest.raises(ValueError):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text()) == {"value": 0.5}


def test_clearing_leaves_what_is_not_an_evaluation(tmp_path: Path) -> None:
    for name in ("samples.jsonl", "results.json", "manifest.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        make_folder(tmp_path / "file" / "folder")
