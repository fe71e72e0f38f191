"""The wheel holds conf/ and recipes/ inside the package, and works from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dgpo_cli

ROOT = Path(dgpo_cli.__file__).resolve().parent.parent

PAGES = tuple(file.name for file in (ROOT / "dgpo_cli/reporting/pages").iterdir())
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="tests run beside an installed package")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder that the wheel is installed into, and another to work in."""
    target, elsewhere = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("elsewhere")
    line = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*line, "--target", str(target), str(wheel)], check=True, capture_output=True, timeout=120)
    return target, elsewhere


def run(installed: tuple[Path, Path], *argv: str) -> subprocess.CompletedProcess[str]:
    target, elsewhere = installed
    line = [sys.executable, str(target / "bin" / "dgpo"), *argv]
    environment = {**os.environ, "PYTHONPATH": str(target)}
    return subprocess.run(line, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120)


def test_nothing_but_the_package_is_installed_at_the_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dgpo_cli", "dgpo"}
    assert "dgpo_cli/conf/train.yaml" in names
    assert "dgpo_cli/engines/vllm/plugin/dgpo_vllm/serve.py" in names  # what vLLM's interpreter finds by its path alone
    assert {f"dgpo_cli/reporting/pages/{name}" for name in PAGES} <= set(names)
    assert "dgpo_cli/reporting/pages/compare.html.j2" in names
    assert "dgpo_cli/engines/vllm/plugin/dgpo_vllm/worker.py" in names
    assert "dgpo_cli/recipes/bands/tiny_dgpo.yml" in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_installed_program_helps_from_any_folder(installed: tuple[Path, Path]) -> None:
    done = run(installed, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Distribution-Guided Policy Optimization" in done.stdout
    assert "qwen32b" in run(installed, "train", "-h").stdout


def test_the_installed_program_composes_from_the_wheel(installed: tuple[Path, Path]) -> None:
    target, elsewhere = installed
    done = run(installed, "train", "--cfg", "job", "model=qwen32b")
    assert (done.returncode, done.stderr) == (0, "")
    assert "path: Qwen/Qwen2.5-32B" in done.stdout
    done = run(installed, "train", "--info", "searchpath")
    assert str(target / "dgpo_cli" / "conf") in done.stdout
    assert str(ROOT / "conf") not in done.stdout
    assert not list(elsewhere.iterdir())
