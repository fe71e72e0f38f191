"""Which keys hold paths, and what lies there. The standard library alone: completion asks at every Tab."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDERS_OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir")  # they need not be there yet
PATHS = (
    *(
        "model.path",
        "reference.path",
        "swap.path",
        "data.path",
        "benchmark.path",
        "benchmark.completions",
        "rollouts",
        "export",
        "grade",
        "band",
        "resume",
    ),
    *("reward.path", "model.template", "data.template", "benchmark.template", *FOLDERS_OF_HYDRA),
)
LISTS_OF_PATHS = ("runs", "benchmark.path", "benchmark.completions", "reward.path")
ROWS = (".jsonl", ".json", ".csv", ".parquet")
# The files that a key takes, beside folders on the way to them; a key that is not here takes a folder.
ENDINGS = {
    **dict.fromkeys(("data.path", "benchmark.path"), ROWS),
    **dict.fromkeys(("benchmark.completions", "grade"), (".jsonl",)),
    "rollouts": (".jsonl", ".parquet"),
    "export": (".npz", ".jsonl", ".parquet"),
    "reward.path": (".py",),
    "band": (".yml", ".yaml"),
    **dict.fromkeys(("model.template", "data.template", "benchmark.template"), ("",)),
}
RUNS = ("resume", "runs", "model.path", "reference.path", "swap.path")


def is_path(name: str) -> bool:
    """Whether a key holds a path, or a list of them."""
    return name in PATHS or name in LISTS_OF_PATHS


def paths_at(name: str, typed: str) -> list[str]:
    """What the path that is typed so far may become: `my_r` -> `my_reward.py:`, then the functions of that file."""
    if name == "reward.path" and ".py:" in typed:
        file, _, begun = typed.rpartition(":")
        return [f"{file}:{function}" for function in _functions(file) if function.startswith(begun)]
    found = files_at(typed, ENDINGS.get(name, ()))
    if name == "reward.path":
        found = [f"{path}:" if path.endswith(".py") else path for path in found]
    word = ["latest"] if name in RUNS and "latest".startswith(typed) else []
    return word + found


def files_at(typed: str, endings: tuple[str, ...]) -> list[str]:
    """Folders, and files with one of the endings, that begin as typed; a folder ends with a slash."""
    before, slash, begun = typed.rpartition("/")
    folder = Path(before + slash or ".").expanduser()
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    found = []
    for entry in entries:
        if not entry.name.startswith(begun) or (entry.name.startswith(".") and not begun.startswith(".")):
            continue
        if entry.is_dir():
            found.append(f"{before}{slash}{entry.name}/")
        elif endings and entry.name.endswith(endings):
            found.append(f"{before}{slash}{entry.name}")
    return found


def _functions(file: str) -> list[str]:
    """The public functions at the top of a file, which is not run."""
    try:
        tree = ast.parse(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
