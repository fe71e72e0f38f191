"""Imports point one way, test files are named after what they test, and nothing heavy is imported before a command."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from package_map import circles, imports, modules, room

import dgpo_cli

PACKAGE = Path(dgpo_cli.__file__).parent
# Each row may import from the rows above it, and from nothing in its own row but itself.
LAYERS = [
    ["progress"],
    [
        "errors",
        "types",
        "bundled",
        "files",
        "environment",
        "allocation",
        "command_lines",
        "terminal",
        "hub_access",
        "large_imports",
        "traffic",
    ],
    ["core"],
    ["config", "disk", "rollout_arrays", "tensor_files"],
    ["meeting", "collectives"],
    ["processes", "planning"],
    ["crew"],
    ["models"],
    ["data", "engines", "rewards"],
    ["algorithm"],
    ["records"],
    ["evaluation"],
    ["evidence"],
    ["reporting"],
    ["training"],
    ["commands"],
    ["jobs"],
    ["sweeps"],
    ["hydra_app"],
    ["one_job"],
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


TESTS = Path(__file__).parent
# Test files that are not named after one module, and what they test.
OF_NO_MODULE = {
    "bundled/test_tiny.py": "the files of the bundled model",
    "commands/test_eval_openai.py": "dgpo eval with engine=openai",
    "commands/test_learning.py": "dgpo train as a whole: the bundled model learns",
    "commands/test_phases.py": "what train, eval and rollout say while they take long",
    "commands/test_several_benchmarks.py": "dgpo train with several benchmarks",
    "commands/test_train_eight_bit.py": "dgpo train with moments of 8 bits",
    "commands/test_train_imports.py": "what dgpo train does not import",
    "commands/test_train_lag.py": "dgpo train with rollouts drawn one step ahead",
    "commands/test_train_lora.py": "dgpo train with adapters",
    "commands/test_train_oracle.py": "dgpo train by an oracle, its resumption and its stored rollouts",
    "commands/test_train_processes.py": "dgpo train on several processes",
    "commands/test_train_quantized.py": "dgpo train with adapters on a quantised base",
    "commands/test_train_vllm.py": "dgpo train, eval and rollout with engine=vllm",
    "data/test_shared_data.py": "the benchmarks' own files",
    "engines/test_conformance.py": "every engine keeps the promise of types.Engine",
    "faults/test_faults.py": "kills and full disks, the short form",
    "faults/test_faults_long.py": "kills and full disks, the long form",
    "faults/test_faults_beside.py": "kills of a run that saves beside its steps",
    "faults/test_faults_vllm.py": "kills of a run that draws with vLLM",
    "recipes/test_build_tiny.py": "recipes/build_tiny.py",
    "recipes/test_job_files.py": "the job files in recipes/skypilot and recipes/kubernetes",
    "recipes/test_reward_recipes.py": "the files of recipes/rewards",
    "recipes/test_trl_token_credit.py": "recipes/trl_token_credit.py",
    "recipes/test_verl_advantage.py": "recipes/verl_advantage.py",
    "reporting/test_credit_groups.py": "pages/credit_groups.js and credit_forks.js",
    "reporting/test_credit_view.py": "pages/credit_links.js, and how the credit page fits a window",
    "rewards/test_adversarial.py": "the graders together, on adversarial completions",
    "rewards/test_grading_pairs.py": "the graders together, on a table of answers",
    "training/test_several_processes.py": "the parts of training, on any number of processes",
    "sweeps/test_launchers.py": "the plug-ins of other launchers",
    "sweeps/test_sweeps_long.py": "sweeps of real training, killed",
    "test_architecture.py": "the package and its tests as a whole",
    "test_browser.py": "tests/browser.py",
    "test_conf.py": "the options in conf/ and the recipes",
    "test_cost.py": "benchmarks/cost.py",
    "test_gpu_hour.py": "benchmarks/gpu.py",
    "test_metrics_doc.py": "docs/metrics.md",
    "test_regression_guard.py": "benchmarks/check.py",
    "test_reward_docs.py": "docs/rewards.md and docs/evaluation.md",
    "test_wheel.py": "the wheel that is installed",
    "test_your_own.py": "the commands of docs/your-own.md",
}


def unnamed_tests(tests: Path, package: Path) -> list[str]:
    """Test files for which the package has no module: ROOM/test_X.py, or ROOM/test_ROOM_X.py, tests ROOM/X.py."""
    found = []
    for path in sorted(tests.rglob("test_*.py")):
        folder, name = path.parent.relative_to(tests), path.stem.removeprefix("test_")
        names = (name, name.removeprefix(f"{folder.name}_"))
        if not any((package / folder / f"{one}.py").is_file() for one in names):
            found.append(path.relative_to(tests).as_posix())
    return found


def test_a_test_file_is_named_after_its_module() -> None:
    assert set(unnamed_tests(TESTS, PACKAGE)) == set(OF_NO_MODULE)


def test_a_test_file_of_another_name_is_found(tmp_path: Path) -> None:
    for name in ("house/hall/door.py", "tests/hall/test_door.py", "tests/hall/test_hall_door.py", "tests/test_door.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert unnamed_tests(tmp_path / "tests", tmp_path / "house") == ["test_door.py"]


def test_no_two_files_of_the_tests_have_one_name() -> None:
    """pytest imports them by their names alone, so one would hide the other."""
    names = Counter(path.name for path in TESTS.rglob("*.py") if path.name not in ("conftest.py", "__init__.py"))
    assert [name for name, count in names.items() if count > 1] == []


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
