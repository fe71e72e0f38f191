"""A stand-in for a vLLM server that sleeps, which the real one can do on a GPU alone (`engine.colocated`).

It speaks the endpoints that dgpo uses, by plain HTTP, and draws with a transformers model into which it loads the files
that it is pushed. It is as strict as a GPU: what sleeps is lost (weights become NaN), a draw needs weights and cache,
a push needs the memory of weights. What it refuses, and every call, stands in `calls`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch
from safetensors.torch import load_file
from small_server import Reply, Request, SmallServer

from dgpo_cli.models.loading import load_model

PARTS = {"weights", "kv_cache"}
SAID = ("/sleep", "/wake_up", "/inference/v1/generate", "dgpo_verify", "dgpo_load")


class SleepingServer:
    """One server of the bundled model, awake at first."""

    def __init__(self) -> None:
        self.model = load_model("bundled:tiny").model
        self.asleep: set[str] = set()
        self.filled = True  # the weights have content
        self.version = "default"
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}  # a call -> the status that it is answered with
        self._files: list[Path] = []
        self._lock = threading.RLock()
        self.http = SmallServer(self._reply)
        self.url = f"http://127.0.0.1:{self.http.port}"

    def _reply(self, request: Request, _: int) -> Reply:
        with self._lock:
            parts = urlsplit(request.path)
            asked = request.payload or {}
            call = asked["method"] if parts.path == "/collective_rpc" else parts.path
            if call in SAID:
                self.calls.append(f"{call}?{parts.query}" if parts.query else call)
            if call in self.fails:
                return Reply({"error": {"message": "CUDA out of memory"}}, self.fails[call])
            if parts.path == "/collective_rpc":
                return Reply({"results": [self._worker(call, json.loads(asked["kwargs"]["text"]))]})
            return self._server(parts.path, parse_qs(parts.query), asked)

    def _server(self, path: str, query: dict[str, list[str]], asked: dict[str, Any]) -> Reply:
        if path == "/sleep":
            assert query == {"level": ["2"], "mode": ["abort"]}
            self.asleep, self.filled = set(PARTS), False
            for weight in self.model.parameters():
                weight.data.fill_(float("nan"))
            return Reply({"status": "sleeping"})
        if path == "/wake_up":
            self.asleep -= set(query["tags"])
            return Reply({"status": "sleeping" if self.asleep else "awake"})
        if path == "/inference/v1/generate":
            if self.asleep or not self.filled:
                self.calls.append(f"refused: a draw while {sorted(self.asleep) or 'weights are empty'}")
                return Reply({"error": {"message": "asleep"}}, 500)
            return Reply(self._drawn(asked["token_ids"], asked["sampling_params"]))
        if path == "/update_weight_version":
            self.version = asked["new_version"]
        facts: dict[str, Any] = {"version": "0.32.0", "data": [{"max_model_len": 256}], "weight_version": self.version}
        return Reply(facts)

    def _worker(self, call: str, asked: dict[str, Any]) -> dict[str, Any]:
        if call == "dgpo_verify":
            self._files = [Path(asked["folder"]) / name for name in asked["files"]]
        elif call == "dgpo_load" and "weights" in self.asleep:
            self.calls.append("refused: a push while its weights sleep")
            return {"error": "the weights sleep", "touched": True}
        elif call == "dgpo_load":
            new = {name: tensor for file in self._files for name, tensor in load_file(file).items()}
            self.model.load_state_dict(new, strict=False)
            self.filled = True
        return {"workers": 1, "dtype": "float32", "device": "cuda", "broken": False, "session": asked["session"]}

    @torch.no_grad()
    def _drawn(self, prompt: Sequence[int], sampling: dict[str, Any]) -> dict[str, Any]:
        """A completion, or the log-probs of the prompt if it is asked for these."""
        ids = list(prompt)
        if sampling.get("prompt_logprobs") == 0:
            found = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            rows = [None, *({str(token): {"logprob": float(found[at, token])}} for at, token in enumerate(ids[1:]))]
            return {"prompt_logprobs": rows, "choices": []}
        generator, stops = torch.Generator().manual_seed(sampling["seed"]), sampling["stop_token_ids"]
        content: list[dict[str, Any]] = []
        while len(content) < sampling["max_tokens"]:
            logprobs = self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(torch.multinomial(logprobs.exp(), 1, generator=generator))
            ids.append(token)
            content.append({"token_id": token, "logprob": float(logprobs[token])})
            if token in stops:
                break
        spans = [{"start": 0, "end": len(content), "version": self.version}]
        reason = "stop" if ids[-1] in stops else "length"
        choice = {"token_ids": ids[len(prompt) :], "logprobs": {"content": content}, "finish_reason": reason}
        return {"choices": [{**choice, "weight_versions": spans}]}


@contextmanager
def sleeping(count: int = 1) -> Iterator[list[SleepingServer]]:
    servers = [SleepingServer() for _ in range(count)]
    try:
        yield servers
    finally:
        for one in servers:
            one.http.close()


class StandIns:
    """`Hosts` of such servers, in the place of those that dgpo starts."""

    restartable = True

    def __init__(self, servers: list[SleepingServer]) -> None:
        self.servers = servers

    @property
    def urls(self) -> list[str]:
        return [one.url for one in self.servers]

    def start(self, longest: int) -> dict[str, Any]:
        return {"vllm": "a stand-in"}

    def restart(self, dead: Sequence[int]) -> None:
        for one in dead:
            self.servers[one] = SleepingServer()

    def last_words(self, numbers: Sequence[int]) -> str:
        return ""

    def close(self) -> None: ...
