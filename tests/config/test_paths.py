"""Paths as a person types them: Hydra gets back what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dgpo_cli.config.overrides import parse, prepare, values_of
from dgpo_cli.config.paths import for_hydra


def read(name: str, text: str, multirun: bool = False) -> Any:
    """What a job gets: interpolations left as they are in a value of their own."""
    override = parse(f"{name}={for_hydra(name, text, 'train', multirun=multirun)}")
    values = values_of(override) if override.is_sweep_override() else override.value()
    job: Any = OmegaConf.to_container(OmegaConf.create({"key": values}), resolve=False)
    return job["key"]


@pytest.mark.parametrize(
    "text", ["/x/lr=1e-3", "a#b", "{x}", "it's", "ü", "1e-3", "007", "true", "a(b", "/x/[1]", " a ", "a:b", "x}", "!"]
)
@pytest.mark.parametrize("name", ["hydra.run.dir", "model.path", "resume", "reward.path", "rollouts"])
def test_what_the_grammar_cannot_read_means_itself(name: str, text: str) -> None:
    assert read(name, text) == text


@pytest.mark.parametrize("text", ["interp${x}", "${x", "${x.y}", "${nothing:1}", "a=${x}"])
def test_what_is_no_interpolation_means_itself(text: str) -> None:
    assert read("hydra.run.dir", text) == text.replace("${", "\\${")


@pytest.mark.parametrize("text", ["o/${algo.name}", "o/${seed}", "${oc.env:HOME}/x", "${now:%Y}", "x=${seed}"])
def test_interpolations_of_what_there_is_stay(text: str) -> None:
    assert read("hydra.run.dir", text) == text


def test_a_folder_that_is_there_is_meant_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run${seed}", "a,b", "[a]", "???"):
        (tmp_path / name).mkdir()
    assert read("model.path", "run${seed}") == "run\\${seed}"
    assert read("hydra.run.dir", "run${seed}/${algo.name}") == "run\\${seed}/${algo.name}"
    assert read("model.path", "a,b") == "a,b"
    assert read("model.path", "[a]") == "[a]"
    assert read("model.path", "???") == "./???"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("'a b'", "a b"),
        ('"a=b"', "a=b"),
        ("a\\,b", "a,b"),
        ("null", None),
        ("", ""),
        ("'null'", "null"),
        ("'${x}'", "\\${x}"),
    ],
)
def test_quotes_and_words_of_hydra_keep_their_meaning(text: str, meant: str | None) -> None:
    assert read("model.path", text) == meant


def test_a_sweep_keeps_its_commas() -> None:
    assert read("model.path", "a,b", multirun=True) == ["a", "b"]
    assert read("data.path", "lr=1,'x,y',ü", multirun=True) == ["lr=1", "x,y", "ü"]
    assert prepare("train", ["model.path=a,b"])[1][0].message == "'model.path=a,b' names several values"


def test_each_folder_of_a_list_is_read_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    assert read("runs", "[out/lr=1,ü,1e-3]") == ["out/lr=1", "ü", "1e-3"]
    assert read("runs", "[x,a,b]") == ["x", "a,b"]
    assert read("runs", "['x y',\"z\"]") == ["x y", "z"]
