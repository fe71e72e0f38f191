"""Hydra's complaints in a user's words."""

from __future__ import annotations

import pytest

from dgpo_cli.config.hydra_errors import config_error

MISSING = """In 'hydra/config': Could not find 'hydra/launcher/{name}'

Available options in 'hydra/launcher':
\tbasic
\tjoblib
Config search path:
\tprovider=hydra, path=pkg://hydra.conf"""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ray", "pip install 'dgpo[ray]' brings it"),
        ("submitit_slurm", "pip install 'dgpo[submitit]' brings it"),
        ("rya", "options: basic, joblib"),
    ],
)
def test_a_launcher_that_an_extra_brings_names_the_extra(name: str, hint: str) -> None:
    error = config_error(Exception(MISSING.format(name=name)), "train")
    assert str(error) == f"In 'hydra/config': Could not find 'hydra/launcher/{name}'"
    assert error.problems[0].hint == hint
