"""What the trainer says to one vLLM server about weights: its endpoints for development, which no other file names.

They are there with VLLM_SERVER_DEV_MODE=1. The calls of the plugin go through /collective_rpc, to every worker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dgpo_cli.engines.http import Answer, HttpClient, said
from dgpo_cli.engines.vllm.client import ADDRESS_HINT
from dgpo_cli.engines.vllm.updates import Refusal
from dgpo_cli.errors import RunError, ServerError

DEV_HINT = (
    "the server has to be started with VLLM_SERVER_DEV_MODE=1 and --worker-extension-cls dgpo_vllm.worker.Weights, "
    "and dgpo's plugin folder on its PYTHONPATH"
)
LOG_HINT = "the server's log may say why"
WEIGHTS, CACHE = "weights", "kv_cache"  # what sleeps, as vLLM calls it
DRAIN_SECONDS = 60.0  # for what other requests have in flight; then they are aborted


@dataclass(frozen=True)
class Facts:
    """What a server says of itself."""

    workers: int
    dtype: str
    device: str  # cpu | cuda


class Conversation:
    """One server. Safe to use from several threads."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._http = HttpClient(self.url, retries=0, timeout_seconds=timeout_seconds, absent_hint=ADDRESS_HINT)
        self._draining = HttpClient(self.url, retries=0, timeout_seconds=DRAIN_SECONDS)

    def begin(self, session: str) -> Facts:
        """Make the server take updates of this trainer alone. A server that another trainer left paused goes on.

        Raises:
            RunError: it can't be reached, or has not the plugin.
        """
        answers = self.calls("dgpo_begin", session=session)
        first = answers[0]
        for answer in answers:
            if refused := answer.get("refused") or answer.get("error"):
                raise RunError(f"{self.url}: {refused}", LOG_HINT)
        if any(answer["broken"] for answer in answers):
            raise RunError(f"{self.url}: an update has failed half-way there", "start the server anew")
        self.resume()
        return Facts(int(first["workers"]), str(first["dtype"]), str(first["device"]))

    def calls(self, method: str, **arguments: Any) -> list[dict[str, Any]]:
        """The answer of every worker of the server to a call of the plugin, by rank.

        Raises:
            RunError: no usable answer.
        """
        answer = self._post("/collective_rpc", {"method": method, "kwargs": {"text": json.dumps(arguments)}})
        record = answer.json()
        results = record.get("results") if isinstance(record, dict) else None
        if not isinstance(results, list) or not results or not all(isinstance(one, dict) for one in results):
            raise RunError(f"{self.url}: {method} has no answer of the plugin in {answer.text[:200]!r}", DEV_HINT)
        return results

    def refusal(self, method: str, loads: bool = False, /, **arguments: Any) -> Refusal | None:
        """Why a worker of the server does not do what it was asked for; None if all have done it.

        loads: the call replaces the model's weights. Then a server that gives no answer, or whose workers do not agree,
        is `touched`: some part of the model may be new.
        """
        try:
            results = self.calls(method, **arguments)
        except RunError as error:
            return Refusal(str(error), touched=loads)
        flaws = [result for result in results if "refused" in result or "error" in result]
        if not flaws:
            return None
        touched = any(result.get("touched", False) for result in flaws) or (loads and len(flaws) < len(results))
        return Refusal(str(flaws[0].get("refused") or flaws[0]["error"]), touched)

    def pause(self) -> None:
        """Let nothing be computed until `resume`; what others have in flight may end, if it does so soon.

        The cache of prefixes is emptied: it would answer with the old weights.
        """
        try:
            answer = self._draining.send("/pause?mode=wait&clear_cache=true", {})
            paused = answer.is_good
        except ServerError:
            paused = False
        if not paused:  # an engine in the server's own process can't wait
            self._post("/pause?mode=abort&clear_cache=true", {})

    def resume(self) -> None:
        """Compute again."""
        self._post("/resume", {})

    def sleep(self) -> None:
        """Give back the memory of weights and cache, whose content is lost. What is in flight is aborted.

        Raises:
            RunError: it does not.
        """
        self._post("/sleep?level=2&mode=abort", {})

    def wake_up(self, part: str) -> None:
        """Take memory for `weights`, whose content has to be pushed, or for the `kv_cache`; with both it computes.

        Raises:
            RunError: it does not: there is too little memory, for example. Or it has both parts, and sleeps on.
        """
        answer = self._post(f"/wake_up?tags={part}", {})
        record = answer.json()
        status = record.get("status") if isinstance(record, dict) else None
        if status != "awake" and (part == CACHE or status != "sleeping"):
            raise RunError(f"{self.url}: /wake_up?tags={part} leaves the server {status}", LOG_HINT)

    def name_version(self, version: str) -> None:
        """What every token from here on says in `weight_versions`."""
        self._post("/update_weight_version", {"new_version": version})

    def version(self) -> str:
        """As tokens say it; `default` is what the server was started with."""
        record = self._get("/weight_info").json()
        return str(record["weight_version"]) if isinstance(record, dict) else ""

    def prompt_logprobs(self, token_ids: list[int]) -> list[float]:
        """The log-prob of each token of a sequence but the first, given those before it.

        Raises:
            RunError: no answer, or one without them.
        """
        sampling: Mapping[str, Any] = {
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
            "detokenize": False,
            "ignore_eos": True,
        }
        answer = self._post(
            "/inference/v1/generate", {"token_ids": token_ids, "stream": False, "sampling_params": sampling}
        )
        record = answer.json()
        found: Any = record.get("prompt_logprobs") if isinstance(record, dict) else None
        try:
            values = [float(found[at][str(token)]["logprob"]) for at, token in enumerate(token_ids) if at]
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise RunError(f"{self.url}: its answer has no log-probs of the prompt", LOG_HINT) from error
        return values

    def _post(self, path: str, payload: dict[str, Any]) -> Answer:
        return self._good(path, self._http.send(path, payload, first=True, hint=LOG_HINT))

    def _get(self, path: str) -> Answer:
        return self._good(path, self._http.send(path, first=True, hint=LOG_HINT))

    def _good(self, path: str, answer: Answer) -> Answer:
        if not answer.is_good:
            hint = DEV_HINT if answer.status in (404, 405) else LOG_HINT
            raise RunError(f"{self.url}: {path} answers with status {answer.status}: {said(answer)[:200]}", hint)
        return answer
