"""Weights by a broadcast from the trainer to all workers of all servers, for hosts that share no folder.

The group is apart from those of trainer and vLLM: gloo between CPUs, NCCL between GPUs, where trainer and vLLM need the
same NCCL. Nothing waits longer than `patience_seconds`, so a worker that is gone costs that, and an error.
"""

from __future__ import annotations

import socket
import time
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch
from torch._C._distributed_c10d import TCPStore

from dgpo_cli.engines.vllm.buckets import BUCKET_BYTES, bucketed
from dgpo_cli.engines.vllm.plugin.dgpo_vllm.broadcasting import group_over, send
from dgpo_cli.engines.vllm.sync_base import MainSends, Servers, gone_through
from dgpo_cli.engines.vllm.updates import Entry, Named, Pushed, Refusal, Stamp, header, raw, total_hash
from dgpo_cli.errors import RunError
from dgpo_cli.processes import SOLO, Processes

PATIENCE_SECONDS = 120.0  # for all to meet, and for each bucket
SLACK_SECONDS = 30.0  # that a server's answer may come later than its workers' time-out


class GroupSync(MainSends):
    """A `WeightSync` over a process group."""

    def __init__(
        self,
        *,
        processes: Processes = SOLO,
        timeout_seconds: float = 600.0,
        patience_seconds: float = PATIENCE_SECONDS,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        super().__init__(processes)
        self.timeout_seconds = timeout_seconds
        self.patience_seconds = patience_seconds
        self.bucket_bytes = bucket_bytes
        self._group: Any = None
        self._store: Any = None
        self._device = torch.device("cpu")

    def init(self, urls: Sequence[str]) -> None:
        if not self.processes.main:
            return
        self._leave()
        self._servers = Servers(urls, timeout_seconds=self.timeout_seconds)
        self._meet(self._servers)

    def close(self) -> None:
        self._leave()

    def _meet(self, servers: Servers) -> None:
        """Raises RunError: not all workers have come in time."""
        kinds = {facts.device for facts in servers.facts}
        if "cuda" in kinds and torch.cuda.is_available():
            self._device = torch.device("cuda", torch.cuda.current_device())
        size = 1 + sum(facts.workers for facts in servers.facts)
        hosts = [_addresses(talk.url) for talk in servers.talks]
        # Workers on other machines need this one's address in their network, which those here can be reached by too.
        own = next((here for here, _ in hosts if not here.startswith("127.")), "127.0.0.1")
        patience = timedelta(seconds=self.patience_seconds)
        self._store = TCPStore(own, 0, None, is_master=True, timeout=patience, wait_for_workers=False)
        place = {"host": own, "port": self._store.port, "size": size, "seconds": self.patience_seconds}
        place["key"] = servers.session
        with ThreadPoolExecutor(len(servers.talks)) as pool:
            first, asked = 1, list[Future[Refusal | None]]()
            for talk, facts, (_, there) in zip(servers.talks, servers.facts, hosts, strict=True):
                address = own if there.startswith("127.") else there
                asked.append(pool.submit(talk.refusal, "dgpo_join", **place, rank=first, address=address))
                first += facts.workers
            try:
                self._group = group_over(
                    self._store,
                    rank=0,
                    size=size,
                    seconds=self.patience_seconds,
                    device=self._device,
                    address=own,
                    key=servers.session,
                )
                lost = ""
            except RuntimeError as error:
                lost = " ".join(str(error).split())[:200]
            refusals = [
                f"{talk.url}: {one.reason}"
                for talk, ask in zip(servers.talks, asked, strict=True)
                if (one := ask.result())
            ]
        if lost or refusals:
            self._leave()
            raise RunError(
                f"engine.sync=group: trainer and workers could not meet: {'; '.join(refusals) or lost}",
                "engine.sync=files needs no group; GLOO_SOCKET_IFNAME names the interface between machines",
            )

    def _pushed(self, version: int, tensors: Named) -> Pushed:
        servers = self._servers
        assert servers is not None
        started = time.perf_counter()
        stamp = Stamp(servers.session, version)
        try:
            if self._group is None:  # it was lost in an earlier push
                self._meet(servers)
            entries, refusals = self._sent(servers, stamp, tensors)
        finally:
            gone_through(tensors)  # after an error too: the others gather the rest, and wait for this process
        if not refusals:
            asked = {"session": stamp.session, "version": version, "sha256": total_hash(entries)}
            refusals = servers.all(lambda talk: talk.refusal("dgpo_confirm", **asked))
        if refusals:
            servers.forget()
        else:
            refusals = servers.load(stamp)
        return Pushed(time.perf_counter() - started, sum(entry.bytes for entry in entries), refusals)

    def _sent(self, servers: Servers, stamp: Stamp, tensors: Named) -> tuple[list[Entry], dict[str, Refusal]]:
        """Broadcast everything while every worker listens. A group that lost somebody is left."""
        entries: list[Entry] = []
        asked = {"session": stamp.session, "version": stamp.version, "seconds": self.patience_seconds}
        lost = ""
        with ThreadPoolExecutor(1) as pool:
            listening = pool.submit(servers.all, lambda talk: talk.refusal("dgpo_receive", **asked))
            try:
                for bucket in bucketed(stamp, tensors, bucket_bytes=self.bucket_bytes):
                    text = header(stamp, bucket.number, bucket.entries)
                    self._send(text, [raw(tensor) for tensor in bucket.tensors])
                    entries += bucket.entries
                self._send("", [])
            except RuntimeError as error:  # of gloo and NCCL
                lost = " ".join(str(error).split())[:200]
                self._leave()
            except BaseException:
                self._leave()  # the workers' wait ends with the group
                raise
            refusals = listening.result()
        if lost and not refusals:
            refusals = {talk.url: Refusal(f"the broadcast of weights failed: {lost}") for talk in servers.talks}
        return entries, refusals

    def _send(self, text: str, parts: list[torch.Tensor]) -> None:
        send(self._group, self._device, text, parts, seconds=self.patience_seconds)

    def _leave(self) -> None:
        self._group = None
        self._store = None


def _addresses(url: str) -> tuple[str, str]:
    """This machine's address and the server's, as each sees the other."""
    parts = urllib.parse.urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))  # sends nothing
        except OSError as error:
            raise RunError(f"{url}: {error.strerror}", "check engine.urls") from error
        return str(probe.getsockname()[0]), str(probe.getpeername()[0])
