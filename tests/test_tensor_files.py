"""What is written is a safetensors file like the library's own, and its hash is that of the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dgpo_cli.tensor_files import write_tensors

TENSORS = {
    "a/step": torch.tensor([3.0]),
    "b": torch.arange(12, dtype=torch.bfloat16).view(3, 4).T,  # not as it lies in memory
    "c": torch.tensor(2**40),  # no dimension
    "d": torch.empty(0, 5),
    "é": torch.tensor([[1, 255]], dtype=torch.uint8),
    "e": torch.rand(1000, 7, dtype=torch.float64),
    "f": torch.tensor([True, False, True]),
}


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    found = write_tensors(path, TENSORS, {"format": "pt"})
    assert found.bytes == path.stat().st_size
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_file_of_nothing_is_one(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {}, {"starts": "{}"})
    assert load_file(tmp_path / "x") == {}
