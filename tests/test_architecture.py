"""Imports point one way, and nothing heavy is imported before a command runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from package_map import circles, imports, modules, room

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
IMPORTS = imports(PACKAGE)


def test_imports_point_one_way() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if room(name) and room(other) and room(name) != room(other) and RANK[room(other)] >= RANK[room(name)]
    ]
    assert not wrong


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    assert not circles(IMPORTS)


def test_no_file_is_so_long_that_it_owns_two_things() -> None:
    long = [
        name for name, path in modules(PACKAGE).items() if len(path.read_text(encoding="utf-8").splitlines()) >= 450
    ]
    assert not long


def test_imports_inside_functions_and_for_types_alone_count(tmp_path: Path) -> None:
    package = tmp_path / "house"
    package.mkdir()
    for name in ("__init__", "yard"):
        (package / f"{name}.py").write_text("")
    (package / "hall.py").write_text("from house import yard\ndef enter():\n    from house.attic import trunk\n")
    (package / "attic.py").write_text("if TYPE_CHECKING:\n    import house.hall\n")
    assert circles(imports(package)) == [["house.attic", "house.hall"]]


def test_every_module_has_its_place() -> None:
    assert {room(name) for name in IMPORTS} - {""} <= set(RANK)


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
def test_nothing_heavy_is_imported_for(argv: list[str], allowed: tuple[str, ...]) -> None:
    code = f"import sys; from dgpo_cli.cli import main; main({argv!r}); print(*({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) <= set(allowed)
