"""Gatings beside the chosen one: read by name, named by what was changed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dgpo_cli.config import keys
from dgpo_cli.config.compose import compose
from dgpo_cli.config.gatings import gating_option, gatings_by_label
from dgpo_cli.errors import ConfigError


@pytest.mark.parametrize("name", keys.options("gating"))
def test_an_option_read_by_name_is_what_hydra_composes(name: str) -> None:
    assert gating_option(name) == compose("rollout", [f"gating={name}"]).gating


@pytest.mark.parametrize("name", keys.options("gating"))
def test_an_option_says_where_it_comes_from_and_is_explained(name: str) -> None:
    """In its file, in the table of docs/credit.md and in the text below it."""
    page = (Path(__file__).parents[2] / "docs/credit.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in page
    assert re.search(rf"^- .*`{name}`", page, re.MULTILINE)


def test_the_chosen_gating_stands_first_and_once() -> None:
    paper = gating_option("paper")
    assert list(gatings_by_label(paper, ["paper", "calibrated"])) == ["paper", "calibrated"]
    changed = replace(paper, temperature=0.05, clip=[0.5, 2.0])
    found = gatings_by_label(changed, ["paper"])
    assert list(found) == ["paper temperature=0.05 clip=[0.5,2.0]", "paper"]
    assert found["paper"] == paper


def test_options_of_a_users_own_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "gating").mkdir()
    (tmp_path / "gating/sharp.yaml").write_text("name: sharp\nsignal: hellinger\ntemperature: 0.01\n")
    assert gating_option("sharp", [tmp_path]).temperature == 0.01
    (tmp_path / "gating/derived.yaml").write_text("defaults: [paper]\nname: derived\n")
    (tmp_path / "gating/wrong.yaml").write_text("name: wrong\ntemperature: warm\n")
    for name, said in (("derived", "defaults list"), ("wrong", "wrong.yaml"), ("none_such", "no gating 'none_such'")):
        with pytest.raises(ConfigError, match=said):
            gating_option(name, [tmp_path])
