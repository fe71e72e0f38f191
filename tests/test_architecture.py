"""Imports point one way, and nothing heavy is imported before a command runs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dgpo_cli

PACKAGE = Path(dgpo_cli.__file__).parent
# Each row may import from the rows above it, and from nothing in its own row but itself.
LAYERS = [
    ["progress"],
    ["errors", "types", "bundled", "files", "environment", "allocation", "command_lines", "terminal"],
    ["core"],
    ["config", "disk"],
    ["meeting"],
    ["processes", "planning"],
    ["crew"],
    ["models"],
    ["data", "engines", "rewards"],
    ["algorithm"],
    ["records"],
    ["evaluation"],
    ["reporting"],
    ["training"],
    ["commands"],
    ["jobs"],
    ["hydra_app"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imported(file: Path) -> set[str]:
    """Every module of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("dgpo_cli.")}


def test_imports_point_one_way():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        here = file.relative_to(PACKAGE).with_suffix("").parts[0]
        for module in imported(file):
            there = module.split(".")[1]
            if here != "__init__" and there in RANK and there != here and RANK[there] >= RANK[here]:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {module}")
    assert not wrong


def test_every_module_has_its_place():
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert names - {"__init__"} <= set(RANK)


HEAVY = ("torch", "transformers", "peft", "numpy", "scipy", "wandb", "rich", "hydra", "omegaconf", "yaml")
CONFIG_ERROR = ["train", "optim.lrr=1", "algo=foo", "rollout.group_size=1"]


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (["-h"], ()),
        (["--version"], ()),
        (["train", "-h"], ()),
        (["help", "optim.lr"], ()),
        (["help", "optim.lrr"], ()),
        (["completion", "bash"], ()),
        (["_complete", "train", "algo="], ()),
        (["trian"], ()),
        (CONFIG_ERROR, ("hydra", "omegaconf", "yaml")),
        (["train", "--cfg", "job"], ("hydra", "omegaconf", "yaml")),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_for(argv, allowed):
    code = f"import sys; from dgpo_cli.cli import main; main({argv!r}); print(*({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) <= set(allowed)
