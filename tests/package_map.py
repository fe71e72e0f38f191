"""A package as modules and their imports, read from its source. For test_architecture.py and benchmarks/rooms.py.

Every import counts: at the top of a file, inside a function, and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]  # a name -> the names that it imports


def modules(package: Path) -> dict[str, Path]:
    """`PACKAGE.room.module` -> its file; a folder's __init__.py goes by the folder's name."""
    files = {path: path.relative_to(package.parent).with_suffix("").parts for path in sorted(package.rglob("*.py"))}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in files.items()}


def imports(package: Path) -> Graph:
    """The modules of the package that each of them imports."""
    found = modules(package)
    return {name: {other for other in _names(path) if other in found} for name, path in found.items()}


def _names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: an import names its module in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of names of which each imports every other one, directly or by way of others."""
    reached = {name: _reached(graph, name) for name in graph}
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(circle) for circle in found if circle)


def _reached(graph: Graph, start: str) -> set[str]:
    """Everything that `start` imports, by way of others too; itself only if a circle leads back to it."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


def room(module: str) -> str:
    """The folder of a module, or the file at the top of the package; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def rooms(graph: Graph) -> Graph:
    """The rooms that each room imports, without itself."""
    found: Graph = {room(name): set() for name in graph}
    for name, others in graph.items():
        found[room(name)] |= {room(other) for other in others} - {room(name)}
    return found


def function_lengths(file: Path) -> list[tuple[int, str]]:
    """(lines, name) of each function and method, from its `def` to its last line, docstring and all."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in functions]
