"""Seconds that new weights take from a trainer to a vLLM server, against their bytes.

    python benchmarks/weight_sync.py [--megabytes 1 30 100 1000] [--workers 1 2] [--dtype float32]

Random-weight models of Qwen2's shape, files and group, median of three pushes after a first one. A push ends when the
server has verified, loaded and renamed everything. tests/install_vllm.sh makes the environment that the server needs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from model_factory import save_plain_model
from vllm_process import served

from dgpo_cli.engines.vllm.files_sync import FilesSync
from dgpo_cli.engines.vllm.group_sync import GroupSync
from dgpo_cli.engines.vllm.updates import WeightSync
from dgpo_cli.models.export import exported
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model

VOCABULARY = 32_000
# Megabytes, about: hidden size, layers, vocabulary.
SIZES = {1: (64, 2, 1_024), 30: (128, 8, VOCABULARY), 100: (320, 8, VOCABULARY), 1000: (1_536, 6, VOCABULARY)}
PUSHES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    print("| bytes | tensor parallel | files | group |\n|---|---|---|---|", flush=True)
    for size in options.megabytes:
        hidden, layers, vocabulary = SIZES[size]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            save_plain_model(path, hidden, layers, vocabulary)
            for workers in options.workers:
                print(row(path, workers, options.dtype), flush=True)


def row(path: Path, workers: int, dtype: str) -> str:
    """A line of the table: medians over some pushes to one server."""
    model = load_model(str(path))
    cells, size = [], 0
    with served(path, path.parent / f"log_{workers}", dtype=dtype, workers=workers) as url:
        for sync in (FilesSync(), GroupSync()):
            seconds, size = timed(sync, url, model, getattr(torch, dtype))
            cells.append(f"{seconds:.2f} s")
    return f"| {size / 1e6:,.1f} MB | {workers} | {' | '.join(cells)} |"


def timed(sync: WeightSync, url: str, model: LanguageModel, dtype: torch.dtype) -> tuple[float, int]:
    """Median seconds, and bytes, of a push."""
    sync.init([url])
    taken = []
    for version in range(PUSHES + 1):
        pushed = sync.push(version, exported(model, dtype))
        pushed.check()
        taken.append(pushed.seconds)
    sync.close()
    return statistics.median(taken[1:]), pushed.bytes


if __name__ == "__main__":
    main()
