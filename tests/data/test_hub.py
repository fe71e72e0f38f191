"""The hub, with the download replaced: no test reaches the network."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dgpo_cli.data.problems import load_problem_set
from dgpo_cli.errors import DataError

KEYS: dict[str, Any] = {"prompt_key": "problem", "answer_key": "answer"}
COMMIT = "0123456789" * 4


class Table(list[dict[str, Any]]):
    info = SimpleNamespace(download_checksums={f"hf://datasets/owner/name@{COMMIT}/data/test.parquet": {}})


def replace_datasets(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    config = SimpleNamespace(HF_HUB_OFFLINE=False)
    module = SimpleNamespace(load_dataset=load, disable_progress_bars=lambda: None, config=config)
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("dgpo_cli.data.hub._commit", lambda hub_id, revision: None)


def test_rows_of_several_configurations_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(hub_id: str, config: str | None, *, split: str, revision: str | None) -> Table:
        asked.append((hub_id, config, split, revision))
        return Table([{"problem": f"{config}?", "answer": 7.0}])

    replace_datasets(monkeypatch, load)
    loaded = load_problem_set("owner/name", **KEYS, config="I+II", split="test")
    assert asked == [("owner/name", "I", "test", None), ("owner/name", "II", "test", COMMIT)]
    assert [(one.messages[0][1], one.gold) for one in loaded.problems] == [("I?", "7"), ("II?", "7")]
    assert loaded.revision == COMMIT


def test_the_commit_that_the_hub_names_is_the_one_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(hub_id: str, config: str | None, *, split: str, revision: str | None) -> Table:
        asked.append(revision)
        return Table([{"problem": "a", "answer": 1}])

    replace_datasets(monkeypatch, load)
    monkeypatch.setattr("dgpo_cli.data.hub._commit", lambda hub_id, revision: f"commit of {revision}")
    assert load_problem_set("owner/name", **KEYS, revision="v1").revision == "commit of v1"
    assert asked == ["commit of v1"]


def test_no_network_is_one_line_with_the_key_of_a_local_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> Table:
        import huggingface_hub.constants

        assert huggingface_hub.constants.HF_HUB_OFFLINE  # no retries
        raise ConnectionError("no route\nto the hub")

    replace_datasets(monkeypatch, load)
    with pytest.raises(DataError) as caught:
        load_problem_set("owner/name", **KEYS, config="main", split="test", group="benchmark")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("owner/name (config main, split test): cannot be loaded from the hub")
    assert caught.value.problems[0].hint == "give a local file with benchmark.path=FILE"


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        load_problem_set("owner/name", **KEYS)
    assert caught.value.problems[0].hint == "pip install 'dgpo[hub]', or give a local file with data.path=FILE"


def test_a_row_of_the_hub_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_datasets(monkeypatch, lambda *_, **__: Table([{"problem": "a", "answer": 1}, {"problem": "", "answer": 1}]))
    with pytest.raises(DataError, match=r"row 2: data\.prompt_key=problem: the prompt is empty"):
        load_problem_set("owner/name", **KEYS)
