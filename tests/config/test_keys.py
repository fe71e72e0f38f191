"""The catalogue of keys: every field documented, types in words, the nearest key to a mistyped one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_has_a_meaning(command: str) -> None:
    assert [name for name, key in catalogue.keys(command).items() if not key.meaning] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("steps", "a whole number"),
        ("optim.lr", "a number"),
        ("overwrite", "true or false"),
        ("resume", "text or null"),
        ("optim.betas", "a list of numbers"),
        ("gating.clip", "a list of numbers or null"),
        ("algo.ratio_level", "one of token | sequence"),
        ("optim", "a section with keys of its own"),
    ],
)
def test_types_in_words(name: str, words: str) -> None:
    assert catalogue.describe_type(catalogue.keys("train")[name].type) == words


def test_values_are_shown_as_they_are_typed() -> None:
    typed = [catalogue.show(value) for value in (None, True, [1, 2.5], "text", 0.1)]
    assert typed == ["null", "true", "[1,2.5]", "text", "0.1"]


def test_flat_yaml_reads_what_a_yaml_parser_reads() -> None:
    """Help reads conf/ without a YAML parser: scalars of every file agree with the real one."""
    conf, _ = catalogue.config_roots()
    for file in conf.rglob("*.yaml"):
        if "hydra" in file.relative_to(conf).parts:
            continue
        real = OmegaConf.load(file)
        for path, value in catalogue.flat_yaml(file).items():
            node: Any = OmegaConf.to_container(real)
            for part in path.split("."):
                node = node[part]
            if isinstance(node, list):
                assert value.startswith("[")
            elif isinstance(node, bool) or node is None:
                assert value == catalogue.show(node)
            elif isinstance(node, float):
                assert float(value) == node
            else:
                assert value == str(node), (file, path)


def test_a_user_option_stands_beside_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text("name: mine\n")
    assert {"mine", "dgpo"} <= set(catalogue.options("algo", [tmp_path]))
    assert "mine" not in catalogue.options("algo")


def test_a_reference_may_be_named_by_a_model_option() -> None:
    assert {"initial", "none", "path", "tiny", "qwen32b"} <= set(catalogue.options("reference"))
