"""One vLLM server: a completion asked for by token ids, and its answer, checked before anybody believes it.

The endpoint is vLLM's own `/inference/v1/generate`. Every sampling parameter is sent, those that change nothing too, so
that neither the model's generation_config nor a default of the server can shape a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dgpo_cli.engines.http import MORE_TIME, Answer, Failure, HttpClient, said
from dgpo_cli.errors import ServerError
from dgpo_cli.types import Sampling

GENERATE = "/inference/v1/generate"
SEEDS = 2**63  # vLLM takes signed 64-bit seeds, and a negative one means none
LEAST_LOGPROB = -9000.0  # the server writes -9999 for NaN, for -inf and for a token that has no log-prob
ROUNDING = 1e-3  # nats by which a log-prob may be above 0; it is then 0
GONE = ("unreachable", "connection_lost")  # causes of a failure that say that the server may be no more
STALE = "stale_weights"
ADDRESS_HINT = "start the server, or engine.urls=[http://HOST:PORT] names another; its log may say why it ended"
DEV_HINT = "the server has to be started with VLLM_SERVER_DEV_MODE=1, which opens the endpoints of weights"
LOG_HINT = "the server's log may say why"
HEALTH_SECONDS = 60.0  # a busy server is slow to say that it is well; one that hangs never says so
FIRST_WEIGHTS = "default"  # what a server calls the weights that it was started with


@dataclass(frozen=True)
class Drawn:
    """A completion as a server drew it, the stop token included.

    logprobs: of each token, under the distribution that it was drawn from. version: of the weights, as the server
    calls them; the same for all tokens.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str  # "stop" | "length"
    version: str


@dataclass(frozen=True)
class Limits:
    """What an answer is held to: the rows V of the output head, and the ids that end a completion."""

    vocabulary_size: int
    stop_ids: frozenset[int]


class VllmClient:
    """Requests to one server. Safe to use from several threads; `stop` ends their waiting."""

    def __init__(self, url: str, limits: Limits, *, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self.limits = limits
        self.http = HttpClient(
            self.url, retries=1, timeout_seconds=timeout_seconds, absent_hint=ADDRESS_HINT, backoff_seconds=0.5
        )
        self._health = HttpClient(self.url, retries=0, timeout_seconds=min(timeout_seconds, HEALTH_SECONDS))

    def complete(self, token_ids: Sequence[int], *, seed: int, sampling: Sampling, version: str | None = None) -> Drawn:
        """A completion of a prompt, by one attempt. `seed` fixes its randomness, whatever else the server computes.

        version: of the weights that have to draw it; None accepts any, as long as it is one.

        Raises:
            ServerError: no answer, a refusal, or an answer that is none.
        """
        payload = {"token_ids": list(token_ids), "stream": False, "sampling_params": self._parameters(seed, sampling)}

        def flaw(answer: Answer) -> Failure | None:
            found = read(answer, self.limits, sampling, version)
            return found if isinstance(found, Failure) else None

        answer = self.http.send(GENERATE, payload, retries=0, hint=MORE_TIME, flaw=flaw)
        found = read(answer, self.limits, sampling, version) if answer.is_good else None
        if isinstance(found, Drawn):
            return found
        message = f"{self.url}: {GENERATE} answers with status {answer.status}: {self.http.shown(said(answer))}"
        raise ServerError(message, _refusal_hint(answer), cause=f"status_{answer.status}", whole_server=True)

    def is_up(self) -> bool:
        """Whether the server says within a minute that it is well. One whose weights are torn says so too."""
        try:
            return self._health.send("/health", first=True).is_good
        except ServerError:
            return False

    def close(self) -> None:
        """Let requests that wait for another try end."""
        self.http.stop.set()

    def _parameters(self, seed: int, sampling: Sampling) -> dict[str, Any]:
        return {
            "n": 1,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "seed": seed % SEEDS,
            "max_tokens": sampling.max_tokens,
            "min_tokens": 0,
            "ignore_eos": True,  # of the server's generation_config; ours are among the stop ids
            "stop_token_ids": sorted(self.limits.stop_ids),
            "logprobs": 0,  # of the drawn token alone
            "detokenize": False,
            "skip_special_tokens": False,
        }


def read(answer: Answer, limits: Limits, sampling: Sampling, version: str | None) -> Drawn | Failure:
    """The completion of an answer, or why it is none. All that is none may be asked for again."""
    record = answer.json()
    choices = record.get("choices") if isinstance(record, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return _none(f"an answer of {GENERATE} holds no completion: {said(answer)[:200]}")
    if choice.get("finish_reason") in ("abort", "error"):
        return Failure(f"the server gave up a completion ({choice['finish_reason']})", "gave_up", hint=LOG_HINT)
    ids = _ids(choice.get("token_ids"), limits.vocabulary_size)
    if ids is None:
        return _none(f"an answer of {GENERATE} holds ids that are none of the {limits.vocabulary_size} of the model")
    logprobs = _logprobs(choice.get("logprobs"), ids)
    if isinstance(logprobs, str):
        return _none(f"an answer of {GENERATE} {logprobs}")
    reason = _end(choice.get("finish_reason"), ids, limits.stop_ids, sampling.max_tokens)
    if reason is None:
        return _none(
            f"an answer of {GENERATE} ends by {choice.get('finish_reason')} after {len(ids)} of "
            f"{sampling.max_tokens} tokens, with id {ids[-1]}"
        )
    named = _version(choice.get("weight_versions"), len(ids))
    if named is None or (version is not None and named != version):
        wanted = _weights_of(version)
        shown = f"by {choice.get('weight_versions')}" if named is None else f"by those of {named}"
        return Failure(f"expected a completion drawn by {wanted}, got one {shown}", STALE, hint=LOG_HINT)
    if sampling.temperature == 0:  # the server gives those at temperature 1
        logprobs = (0.0,) * len(ids)
    return Drawn(tuple(ids), logprobs, reason, named)


def _weights_of(version: str | None) -> str:
    if version == FIRST_WEIGHTS:
        return "the weights that the server was started with"
    return "one version of the weights" if version is None else f"the weights of step {version}"


def _none(reason: str) -> Failure:
    return Failure(reason, "no_completion", hint=LOG_HINT)


def _ids(found: Any, vocabulary_size: int) -> list[int] | None:
    """The token ids of an answer, at least one; None if any is no row of the output head."""
    if not isinstance(found, list) or not found:
        return None
    good = all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < vocabulary_size for one in found)
    return found if good else None


def _logprobs(found: Any, ids: list[int]) -> tuple[float, ...] | str:
    """The log-prob of each id; else what is wrong with them."""
    content = found.get("content") if isinstance(found, dict) else None
    if not isinstance(content, list) or len(content) != len(ids):
        count = len(content) if isinstance(content, list) else "no"
        return f"has {count} log-probs for {len(ids)} tokens"
    values = []
    for one, token in zip(ids, content, strict=True):
        value = token.get("logprob") if isinstance(token, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or token.get("token_id") != one:
            return f"has no log-prob for its token {one}"
        if not math.isfinite(value) or not LEAST_LOGPROB < value <= ROUNDING:
            return f"gives {value} as the log-prob of its token {one}"
        values.append(min(float(value), 0.0))
    return tuple(values)


def _end(reason: Any, ids: list[int], stop_ids: frozenset[int], max_tokens: int) -> str | None:
    """stop or length, if the ids bear it out: a stop id stands last and nowhere else, or none and all are there."""
    if any(one in stop_ids for one in ids[:-1]) or len(ids) > max_tokens:
        return None
    if ids[-1] in stop_ids:
        return "stop" if reason == "stop" else None
    return "length" if reason == "length" and len(ids) == max_tokens else None


def _version(spans: Any, count: int) -> str | None:
    """The version that all `count` tokens have; None if they have several, or one has none."""
    if not isinstance(spans, list) or not spans:
        return None
    end, names = 0, set()
    for span in spans:
        if not isinstance(span, dict) or span.get("start") != end or not isinstance(span.get("end"), int):
            return None
        end = span["end"]
        names.add(span.get("version"))
    [name, *others] = names
    return name if end == count and not others and isinstance(name, str) else None


def _refusal_hint(answer: Answer) -> str:
    if answer.status in (404, 405):
        return f"engine.urls names vLLM servers that have {GENERATE}: python -m vllm.entrypoints.openai.api_server"
    return "engine.max_model_len has to hold the longest prompt and completion; the server's log may say more"
