"""Updates of a vLLM server's weights as files, and the ways to spoil one that a server has to notice."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from dgpo_cli.engines.vllm.updates import Stamp, entry_of, header, total_hash

UP = "model.layers.1.mlp.up_proj.weight"


@dataclass
class Update:
    """An update as files, before it is spoilt."""

    folder: Path
    stamp: Stamp
    weights: dict[str, Tensor]
    buckets: list[list[str]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)  # in place of those that are hashed
    labelled: Stamp | None = None  # what the files say
    asked: Stamp | None = None  # what the request says
    files: list[str] = field(default_factory=list)
    afterwards: Callable[[], None] = lambda: None
    sha256: str = ""

    def write(self) -> None:
        names = list(self.weights)
        self.buckets = self.buckets or [names[:9], names[9:]]
        stamp, entries = self.labelled or self.stamp, []
        for number, bucket in enumerate(self.buckets):
            mine = [entry_of(stamp, name, self.weights[name]) for name in bucket]
            tensors = {name: self.tensors.get(name, self.weights[name]).contiguous() for name in bucket}
            save_file(tensors, self.folder / f"{number}.st", metadata={"dgpo": header(stamp, number, mine)})
            entries += mine
        self.files = self.files or [f"{number}.st" for number in range(len(self.buckets))]
        self.sha256 = self.sha256 or total_hash(entries)
        self.afterwards()

    def request(self) -> dict[str, Any]:
        stamp = self.asked or self.stamp
        place = {"folder": str(self.folder), "files": self.files, "sha256": self.sha256}
        return {"session": stamp.session, "version": stamp.version, **place}


def stale(update: Update) -> None:
    update.stamp = Stamp(update.stamp.session, 6)


def of_another_run(update: Update) -> None:
    update.stamp = Stamp("another", 8)


def mislabelled(update: Update) -> None:
    update.labelled = Stamp(update.stamp.session, 7)


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Update], None]:
    def spoil(update: Update) -> None:
        def afterwards() -> None:
            path = update.folder / "1.st"
            path.write_bytes(change(path.read_bytes()))

        update.afterwards = afterwards

    return spoil


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def torn(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def wrong_hash(update: Update) -> None:
    update.tensors[UP] = update.weights[UP] * 1.001


def missing(update: Update) -> None:
    del update.weights[UP]


def extra(update: Update) -> None:
    update.weights["model.layers.7.mlp.up_proj.weight"] = update.weights[UP].clone()


def wrong_name(update: Update) -> None:
    update.weights["model.layers.1.mlp.up.weight"] = update.weights.pop(UP)


def wrong_shape(update: Update) -> None:
    update.weights[UP] = update.weights[UP].T.contiguous()


def wrong_dtype(update: Update) -> None:
    update.weights[UP] = update.weights[UP].bfloat16()


def set_to(value: float) -> Callable[[Update], None]:
    def spoil(update: Update) -> None:
        update.weights[UP] = update.weights[UP].clone()
        update.weights[UP][3, 4] = value

    return spoil


def twice(update: Update) -> None:
    names = list(update.weights)
    update.buckets = [names[:9], [names[0], *names[9:]]]


def link(update: Update) -> None:
    def afterwards() -> None:
        (update.folder / "1.st").rename(update.folder / "real")
        (update.folder / "1.st").symlink_to(update.folder / "real")

    update.afterwards = afterwards


def pipe(update: Update) -> None:
    def afterwards() -> None:
        (update.folder / "1.st").unlink()
        os.mkfifo(update.folder / "1.st")

    update.afterwards = afterwards


def outside(update: Update) -> None:
    def afterwards() -> None:
        shutil.move(update.folder / "1.st", update.folder.parent / "1.st")

    update.files, update.afterwards = ["0.st", "../1.st"], afterwards


def swapped(update: Update) -> None:
    update.files = ["1.st", "0.st"]


def one_file_less(update: Update) -> None:
    update.files = ["0.st"]


def no_such_file(update: Update) -> None:
    update.files = ["0.st", "2.st"]


def other_total(update: Update) -> None:
    update.sha256 = "0" * 64


SPOILT: dict[str, tuple[Callable[[Update], None], str]] = {
    "stale version": (stale, "older than 7"),
    "another run's": (of_another_run, "of another run"),
    "old bytes under a new version": (mislabelled, "holds version 7, expected 8"),
    "a byte flipped": (rewritten(flipped), "its bytes are not those sent"),
    "torn": (rewritten(torn), "its bytes are not those sent"),
    "cut": (rewritten(lambda content: content[:-100]), "no whole safetensors file"),
    "cut in its header": (rewritten(lambda content: content[:20]), "no whole safetensors file"),
    "empty file": (rewritten(lambda _: b""), "is empty"),
    "a pickle": (rewritten(lambda _: pickle.dumps({UP: [1.0]})), "no whole safetensors file"),
    "without a manifest": (
        rewritten(lambda content: content.replace(b'"dgpo"', b'"none"')),
        "no readable manifest",
    ),
    "other values than were hashed": (wrong_hash, "its bytes are not those sent"),
    "a tensor is missing": (missing, f"lacks {UP}"),
    "a tensor too many": (extra, "has model.layers.7.mlp.up_proj.weight besides"),
    "another name": (wrong_name, f"lacks {UP}"),
    "another shape": (wrong_shape, "the model's is"),
    "another dtype": (wrong_dtype, "is bfloat16, the engine computes in float32"),
    "NaN": (set_to(float("nan")), "NaN or infinities"),
    "infinity": (set_to(float("inf")), "NaN or infinities"),
    "a tensor twice": (twice, "comes twice"),
    "a link": (link, "cannot be opened"),
    "a pipe": (pipe, "no regular file"),
    "outside of the folder": (outside, "is no file in the folder"),
    "files swapped": (swapped, "bucket 0 is a copy of bucket 1"),
    "a file is missing": (no_such_file, "cannot be opened"),
    "a file is not named": (one_file_less, "the update lacks"),
    "another total": (other_total, "not those that were announced"),
}


def greedy(url: str) -> tuple[list[int], str]:
    """Tokens, and the version of the weights that all of them name."""
    sampling = {"temperature": 0.0, "max_tokens": 12, "detokenize": False, "ignore_eos": True}
    body = json.dumps({"token_ids": [5, 6, 7], "sampling_params": sampling}).encode()
    request = urllib.request.Request(f"{url}/inference/v1/generate", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        choice = json.loads(answer.read())["choices"][0]
    [span] = choice["weight_versions"]
    return choice["token_ids"], span["version"]
