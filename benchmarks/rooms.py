"""The rooms of the package: which imports which, circles of imports, and the lengths of files and functions.

    .venv/bin/python benchmarks/rooms.py              # this tree
    .venv/bin/python benchmarks/rooms.py v0.1.0       # an earlier commit

A room is a folder of dgpo_cli/, or a file at its top. Rooms stand in the order of their imports: each after those that
it imports, as far as there is no circle. `tests/test_architecture.py` holds the order, and that no circle comes.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from package_map import Graph, circles, function_lengths, imports, modules, room, rooms  # noqa: E402


def table(package: Path, graph: Graph) -> list[str]:
    """A line a room: files, lines, and the rooms that it imports, each with the number of its files that do."""
    files: dict[str, list[Path]] = {}
    for name, path in modules(package).items():
        files.setdefault(room(name), []).append(path)
    arrows = Counter(
        (room(name), there) for name, others in graph.items() for there in {room(other) for other in others}
    )
    between = rooms(graph)
    lines = [f"{'room':<16}{'files':>6}{'lines':>7}  imports"]
    for here in sorted(set(between) - {""}, key=lambda name: (_depth(between, name, ()), name)):
        length = sum(_lines(path) for path in files[here])
        inside = ", ".join(f"{there} {arrows[here, there]}" for there in sorted(between[here]) if there)
        lines.append(f"{here:<16}{len(files[here]):>6}{length:>7}  {inside or '-'}")
    return lines


def _depth(graph: Graph, name: str, above: tuple[str, ...]) -> int:
    """The longest way down from a room; a circle ends it."""
    return 1 + max((_depth(graph, other, (*above, name)) for other in graph[name] if other not in above), default=0)


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def figures(package: Path, graph: Graph) -> list[str]:
    """Circles and lengths."""
    lengths = sorted((_lines(path), str(path.relative_to(package))) for path in modules(package).values())
    functions = sorted(
        (lines, f"{path.relative_to(package)}:{name}")
        for path in modules(package).values()
        for lines, name in function_lengths(path)
    )
    sizes = [lines for lines, _ in functions]
    return [
        _circles("rooms", circles(rooms(graph))),
        _circles("modules", circles(graph)),
        f"arrows between rooms: {sum(len(others) for others in rooms(graph).values())}, "
        f"between modules: {sum(len(others) for others in graph.values())}",
        f"files: {len(lengths)}, median {statistics.median(lines for lines, _ in lengths):.0f} lines; longest: "
        + _named(lengths[-5:]),
        f"functions: {len(sizes)}, median {statistics.median(sizes):.0f} lines, p90 {sizes[int(0.9 * len(sizes))]}; "
        f"longest: {_named(functions[-5:])}",
    ]


def _circles(what: str, found: list[list[str]]) -> str:
    return f"circles of {what}: {'; '.join(' <-> '.join(circle) for circle in found) or 'none'}"


def _named(longest: list[tuple[int, str]]) -> str:
    return ", ".join(f"{name} {lines}" for lines, name in reversed(longest))


def extract(commit: str, folder: Path) -> None:
    """The package as it was at a commit."""
    packed = subprocess.run(["git", "archive", commit, "dgpo_cli"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", help="this tree, if none is named")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory() as folder:
        if commit is not None:
            extract(commit, Path(folder))
        package = (ROOT if commit is None else Path(folder)) / "dgpo_cli"
        graph = imports(package)
        print(*table(package, graph), "", *figures(package, graph), sep="\n")


if __name__ == "__main__":
    main()
