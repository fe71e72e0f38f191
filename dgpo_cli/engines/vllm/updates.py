"""What a push of weights to vLLM servers is, whichever way the bytes go: the protocol, its result, its manifest.

The manifest is the plugin's own file, so that both ends compute one hash.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from dgpo_cli.engines.vllm.plugin.dgpo_vllm.manifest import Entry, Stamp, entry_of, header, raw, tensor_hash, total_hash
from dgpo_cli.errors import RunError

__all__ = ["Entry", "Named", "Pushed", "Refusal", "Stamp", "WeightSync", "entry_of", "header", "raw", "tensor_hash"]
__all__ += ["new_session", "total_hash"]

Named = Iterator[tuple[str, Tensor]]  # weights by their names in the checkpoint, layer by layer


@dataclass(frozen=True)
class Refusal:
    """Why a server does not have the new weights. touched: loading had begun, so that it has to be started anew."""

    reason: str
    touched: bool = False


@dataclass(frozen=True)
class Pushed:
    """What became of a push. If any server refuses, none of them has loaded anything, unless it says `touched`."""

    seconds: float  # from the first tensor to the last server's answer
    bytes: int  # of all tensors
    refusals: Mapping[str, Refusal] = field(default_factory=dict)  # by address

    def check(self) -> None:
        """Raises RunError if a server refused."""
        for url, refusal in self.refusals.items():
            begun = "could not load the new weights, and has to be started anew" if refusal.touched else "refused them"
            raise RunError(
                f"{url} {begun}: {refusal.reason}", "the last checkpoint stands: resume= continues from there"
            )


class WeightSync(Protocol):
    """The way of new weights to the servers. All trainer processes call it together; the main one alone sends."""

    def init(self, urls: Sequence[str]) -> None:
        """Make these servers ours: before the first push, and after one of them was started anew.

        Raises:
            RunError: one of them can't be reached, or has not what is needed.
        """
        ...

    def push(self, version: int, tensors: Named) -> Pushed:
        """Have every server draw with these weights, and call them `str(version)` in `weight_versions`.

        Each process goes through all of `tensors`, whatever happens: those of a sharded model are gathered by all.

        Raises:
            RunError: this end fails (a full folder); the servers keep what they have.
        """
        ...

    def check_owned(self) -> None:
        """In the main process. Raises RunError: another trainer has made one of the servers its own since `init`."""
        ...

    def close(self) -> None:
        """Leave nothing behind. The servers go on as they are."""
        ...


def new_session() -> str:
    """A name that no other start of a trainer has."""
    return uuid.uuid4().hex
