"""Calls that the trainer makes of each of vLLM's workers, by /collective_rpc: weights taken in, or refused.

`--worker-extension-cls dgpo_vllm.worker.Weights` adds them to the worker. None of them raises, because an error inside
a worker would end the engine: a refusal is an answer. An update is verified whole before the model is touched. Once
loading has begun and failed, the model is unusable, and the answer says so (`touched`).

A call takes one JSON text, and answers with a record: `refused` or `error`, if there is one, and what it was asked for.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dgpo_vllm import held, loading
from dgpo_vllm.buckets import Buckets, checkpoint_shapes
from dgpo_vllm.manifest import Entry, Refused, Stamp, check_whole
from dgpo_vllm.receiving import Received, open_group

Call = Callable[..., dict[str, Any]]


def answered(call: Call) -> Call:
    """A call that answers whatever happens in it."""

    @functools.wraps(call)
    def answer(self: Any, text: str = "{}") -> dict[str, Any]:
        try:
            return call(self, **json.loads(text))
        except Refused as refused:
            return {"refused": str(refused)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}

    return answer


class Weights:
    """What is added to a worker of vLLM. Every name begins with `dgpo_`, so that none of the worker's own is hidden."""

    vllm_config: Any
    rank: int
    device: torch.device
    model_runner: Any

    dgpo_session: str | None = None  # of the trainer that may send weights
    dgpo_version: int | None = None  # of the weights that are loaded; None before the first update
    dgpo_broken: bool = False  # loading has failed: the model is unusable
    dgpo_staged: Buckets | Received | None = None  # verified, and not loaded yet
    dgpo_group: Any = None

    @answered
    def dgpo_begin(self, session: str) -> dict[str, Any]:
        """A trainer has come: from here on only its updates count, from any version on."""
        self.dgpo_session, self.dgpo_version, self.dgpo_staged = session, None, None
        return self.dgpo_facts()

    @answered
    def dgpo_state(self) -> dict[str, Any]:
        """What is loaded, and whether the model can be used."""
        return self.dgpo_facts()

    @answered
    def dgpo_verify(self, session: str, version: int, folder: str, files: list[str], sha256: str) -> dict[str, Any]:
        """Read an update from files in a folder. Each worker reads all manifests, and its share of the bytes."""
        stamp = self._dgpo_stamp(session, version)
        staged = Buckets(folder, files, stamp)
        staged.verify(share=self.rank, shares=self.vllm_config.parallel_config.world_size)
        self._dgpo_check(staged.entries, sha256)
        self.dgpo_staged = staged
        return {}

    @answered
    def dgpo_join(self, **place: Any) -> dict[str, Any]:
        """Enter the group of the trainer: the arguments of `open_group`, `rank` being that of the first worker."""
        self.dgpo_group = None
        place["rank"] += self.rank
        self.dgpo_group = open_group(**place, device=self.device)
        return {}

    @answered
    def dgpo_leave(self) -> dict[str, Any]:
        """Leave the group."""
        self.dgpo_group = None
        return {}

    @answered
    def dgpo_receive(self, session: str, version: int, seconds: float) -> dict[str, Any]:
        """Take an update from the group into memory."""
        if self.dgpo_group is None:
            raise Refused("this worker is in no group")
        received = Received(Stamp(session, version))
        try:
            received.receive(self.dgpo_group, self.device, seconds)
        except RuntimeError:
            self.dgpo_group = None  # out of step with the others for good
            raise
        self._dgpo_stamp(session, version)
        self.dgpo_staged = received
        return {}

    @answered
    def dgpo_confirm(self, session: str, version: int, sha256: str) -> dict[str, Any]:
        """Hold what was received against its total."""
        staged = self._dgpo_ready(session, version)
        self.dgpo_staged = None
        self._dgpo_check(staged.entries, sha256)
        self.dgpo_staged = staged
        return {}

    @answered
    def dgpo_load(self, session: str, version: int) -> dict[str, Any]:
        """Put the verified update into the model."""
        staged = self._dgpo_ready(session, version)
        self.dgpo_staged = None
        if isinstance(staged, Buckets):
            staged.check_unchanged()
        started = time.perf_counter()
        self.dgpo_broken, self.dgpo_version = True, None
        try:
            loading.load(self, self._dgpo_model(), self._dgpo_placed(staged))
        except Exception as error:
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "touched": True}
        self.dgpo_broken, self.dgpo_version = False, version
        return {"seconds": time.perf_counter() - started}

    @answered
    def dgpo_forget(self) -> dict[str, Any]:
        """Drop an update that was verified and will not be loaded."""
        self.dgpo_staged = None
        return {}

    @answered
    def dgpo_held(self) -> dict[str, Any]:
        """The hash of what this worker holds of each weight (`held.held`)."""
        return {"held": held.held(self._dgpo_model())}

    def dgpo_facts(self) -> dict[str, Any]:
        """What this worker is, and what it has."""
        parallel = self.vllm_config.parallel_config
        return {
            "rank": self.rank,
            "workers": parallel.world_size,
            "dtype": self._dgpo_dtype(),
            "device": self.device.type,
            "version": self.dgpo_version,
            "broken": self.dgpo_broken,
            "session": self.dgpo_session,
        }

    def _dgpo_stamp(self, session: str, version: int) -> Stamp:
        if session != self.dgpo_session:
            raise Refused("the update is of another run than the one that this server works for")
        if self.dgpo_version is not None and version < self.dgpo_version:
            raise Refused(
                f"the update holds version {version}, which is older than {self.dgpo_version}, the loaded one"
            )
        if self.dgpo_broken:
            raise Refused("an update has failed half-way here: the server has to be started anew")
        return Stamp(session, version)

    def _dgpo_ready(self, session: str, version: int) -> Buckets | Received:
        stamp = self._dgpo_stamp(session, version)
        if self.dgpo_staged is None or self.dgpo_staged.stamp != stamp:
            raise Refused(f"no verified update of version {version} is here")
        return self.dgpo_staged

    def _dgpo_check(self, entries: list[Entry], sha256: str) -> None:
        check_whole(entries, sha256=sha256, expected=self._dgpo_expected(), dtype=self._dgpo_dtype())

    def _dgpo_expected(self) -> dict[str, tuple[int, ...]]:
        """Shape by name of what an update brings: the tensors of the model's folder without a tied head."""
        config = self.vllm_config.model_config
        folder = config.model
        if not os.path.isdir(folder):
            from huggingface_hub import snapshot_download

            folder = snapshot_download(folder, revision=config.revision, local_files_only=True)
        shapes = checkpoint_shapes(folder)
        if not shapes:
            raise Refused(f"{folder} holds no safetensors file, so that no update can be held against it")
        tied = loading.tied_names(self._dgpo_model())
        return {name: shape for name, shape in shapes.items() if name not in tied}

    def _dgpo_dtype(self) -> str:
        return str(self.vllm_config.model_config.dtype).removeprefix("torch.")

    def _dgpo_model(self) -> Any:
        return self.model_runner.get_model()

    def _dgpo_placed(self, staged: Buckets | Received) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in staged.tensors():
            yield name, tensor.to(self.device)
