"""A disk that is full, said in one line. Here it is a limit on the size of files, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dgpo_cli.disk import writing
from dgpo_cli.files import read_lines

LIMITED = """
import resource, sys, torch
from pathlib import Path
from model_factory import byte_level_tokenizer
from safetensors.torch import save_file
from dgpo_cli.disk import writing
from dgpo_cli.errors import RunError
from dgpo_cli.files import append_line, write_atomically

folder, tokenizer = Path(sys.argv[1]), byte_level_tokenizer().backend_tokenizer
weights = {"weight": torch.zeros(300_000)}
(folder / "torch").touch()

def with_torch():
    with (folder / "torch").open("wb") as stream:
        torch.save(weights, stream)

writes = {
    "text": lambda: write_atomically(folder / "text", "x" * 5000),
    "safetensors": lambda: save_file(weights, folder / "safetensors"),
    "tokenizers": lambda: tokenizer.save(str(folder / "tokenizers")),
    "torch": with_torch,
    "line": lambda: [append_line(folder / "line", {"step": i, "text": "x" * n}) for i, n in ((1, 9), (2, 5000))],
}
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for name, write in writes.items():
    try:
        with writing(folder / name, 1_200_000):
            write()
    except RunError as error:
        print(error)
"""


def test_a_full_disk_is_recognised_whichever_library_meets_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    lines = done.stdout.splitlines()
    for name, line in zip(("text", "safetensors", "tokenizers", "torch", "line"), lines, strict=True):
        expected = f"{tmp_path / name} could not be written: File too large (1,200,000 bytes needed, "
        assert line.startswith(expected)
    assert read_lines(tmp_path / "line") == [{"step": 1, "text": "x" * 9}]  # the second left no half line
    assert (tmp_path / "line").read_text().endswith("}\n")
    assert not (tmp_path / "text").exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    for error in (ValueError("a bug"), FileNotFoundError(2, "No such file"), KeyError("x")):
        with pytest.raises(type(error)), writing(tmp_path, 1):
            raise error
