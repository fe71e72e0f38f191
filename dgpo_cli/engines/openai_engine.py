"""Sampling from a server that speaks the OpenAI protocol: vLLM, SGLang, llama.cpp, `transformers serve`.

It owns what is asked and what becomes of failures; `http` owns the transport, `answers` how an answer is read. No
model, no tokenizer and no torch here: the server applies its own chat template and its own stop tokens, and its
completions have no ids.

Servers fill options that a request leaves out from the model's generation_config (Qwen2.5-Instruct: penalty 1.05, top_k
20), so neutral values are sent along. They are no part of the protocol, hence `DIALECTS`: the first that the server
accepts is used.

A request that fails for good is left unanswered and the others go on; where failures come in a row, and cannot be those
of a few prompts, no more is asked.
"""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dgpo_cli.engines.answers import read_completion
from dgpo_cli.engines.http import OF_THE_SERVER, Answer, Failure, HttpClient, said
from dgpo_cli.errors import RunError, ServerError
from dgpo_cli.types import EngineFacts, Prompt, Rollout, SampleRequest, Sampling, Unanswered

LENGTH = ("length", "max_tokens")
LARGEST_SEED = 2**31  # llama.cpp keeps 32 bits, and the largest of them means "random"
PROBLEMS_IN_A_ROW = 8  # that fail without an answer between them; one prompt may be at fault, so many are not
REQUESTS_IN_A_ROW = 64  # of however few problems
MAX_TOKENS_KEYS = ("max_tokens", "max_completion_tokens")
URL_HINT = "engine.url=http://HOST:PORT/v1 is the address of the API, usually with /v1 at its end"


def _vllm(sampling: Sampling) -> dict[str, Any]:
    """vLLM, SGLang; llama.cpp reads the first two, and has no penalty unless it is started with one."""
    return {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


def _transformers(sampling: Sampling) -> dict[str, Any]:
    """`transformers serve` 5.23 draws greedily at any temperature unless a generation_config says do_sample."""
    neutral = {"do_sample": sampling.temperature > 0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    return {"generation_config": json.dumps(neutral)}


def _none(sampling: Sampling) -> dict[str, Any]:
    return {}


DIALECTS: dict[str, Callable[[Sampling], dict[str, Any]]] = {
    "vllm": _vllm,
    "transformers": _transformers,
    "none": _none,
}


def _emptied(finished: queue.SimpleQueue[tuple[int, Rollout | Exception]]) -> Iterator[tuple[int, Rollout | Exception]]:
    """What has come in already."""
    while not finished.empty():
        yield finished.get()


class _Streak:
    """Failures in a row, over all threads and units."""

    def __init__(self) -> None:
        self.requests = 0
        self.of_the_server = 0
        self.problems: set[int] = set()

    def add(self, request: SampleRequest, error: ServerError) -> bool:
        """Whether it is time to stop: no one prompt can be what is wrong."""
        self.requests += 1
        self.of_the_server += error.whole_server
        self.problems.add(request.prompt.problem.index)
        most = max(len(self.problems), self.of_the_server)
        return most >= PROBLEMS_IN_A_ROW or self.requests >= REQUESTS_IN_A_ROW


class OpenAIEngine:
    """An Engine that is a server of somebody else's, asked `concurrency` requests at a time. `connect` makes one."""

    def __init__(
        self,
        client: HttpClient,
        *,
        model: str,
        chat: bool,
        dialect: str,
        concurrency: int,
        max_tokens_key: str = "max_tokens",
    ) -> None:
        self.client = client
        self.model = model
        self.chat = chat
        self.dialect = dialect
        self.concurrency = concurrency
        self.max_tokens_key = max_tokens_key
        self._streak = _Streak()

    @property
    def facts(self) -> EngineFacts:
        """The server makes batches of its own as requests come in: to keep ours whole would repeat no sample."""
        return EngineFacts(
            depends_on_unit=False,
            units_at_once=1,
            gives_logprobs=False,
            shares_devices=False,
            # Neither address nor key: the same model may be served elsewhere when an evaluation goes on.
            manifest={
                "model": {"name": self.model},
                "engine": "openai",
                "endpoint": self.endpoint,
                "dialect": self.dialect,
            },
        )

    @property
    def endpoint(self) -> str:
        return "/chat/completions" if self.chat else "/completions"

    def load(self, version: int) -> None:
        """Raises RunError: which weights a server has is the choice of whoever started it."""
        raise RunError(f"{self.client.url}: this server holds its own weights, and takes none of step {version}")

    def close(self) -> None:
        """Let requests that wait for another try end."""
        self.client.stop.set()

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout | Unanswered]:
        """A completion a request, in order, or why there is none. Units mean nothing to a server.

        No more is asked, and what is left ends with the last error, after failures without an answer between them of
        `PROBLEMS_IN_A_ROW` problems, of as many requests where the whole server is at fault, or of `REQUESTS_IN_A_ROW`.
        """
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for position in range(len(requests)):
            todo.put(position)
        finished: queue.SimpleQueue[tuple[int, Rollout | Exception]] = queue.SimpleQueue()
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                try:
                    position = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    finished.put((position, self._complete(requests[position], sampling)))
                except Exception as error:  # handed to the caller's thread, where it is counted or raised
                    finished.put((position, error))

        self.client.stop.clear()
        # Daemons: a signal does not have to wait for answers that may be minutes away.
        for _ in range(min(self.concurrency, len(requests))):
            threading.Thread(target=work, daemon=True).start()
        outcomes: dict[int, Rollout | Unanswered] = {}
        end: Unanswered | None = None
        try:
            while len(outcomes) < len(requests) and end is None:
                position, outcome = finished.get()
                outcomes[position] = counted = self._counted(requests[position], outcome)
                end = counted if isinstance(counted, Unanswered) and counted.ends else None
        finally:
            ended.set()
            if len(outcomes) < len(requests):
                self.client.stop.set()
        if end is None:
            return [outcomes[position] for position in range(len(requests))]
        outcomes |= {position: outcome for position, outcome in _emptied(finished) if isinstance(outcome, Rollout)}
        return [outcomes.get(position) or replace(end, request=request) for position, request in enumerate(requests)]

    def _counted(self, request: SampleRequest, outcome: Rollout | Exception) -> Rollout | Unanswered:
        if isinstance(outcome, Rollout):
            self._streak = _Streak()
            return outcome
        if not isinstance(outcome, ServerError):
            raise outcome
        [problem] = outcome.problems
        ends = self._streak.add(request, outcome)
        return Unanswered(request, outcome.cause, problem.message, problem.hint, ends)

    def ask(self, request: SampleRequest, sampling: Sampling, *, first: bool = False) -> Answer:
        """The server's answer to one request: a completion, or a refusal.

        Raises:
            ServerError: neither, after all retries.
        """
        prompt = request.prompt
        if self.chat:
            messages = prompt.messages or prompt.problem.messages
            what: dict[str, Any] = {"messages": [{"role": role, "content": content} for role, content in messages]}
        else:
            what = {"prompt": prompt.text}
        payload = {
            "model": self.model,
            **what,
            "n": 1,
            "stream": False,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.max_tokens_key: sampling.max_tokens,
            "seed": request.seed % LARGEST_SEED,
            **DIALECTS[self.dialect](sampling),
        }
        return self.client.send(self.endpoint, payload, first=first, flaw=self._flaw_at_first if first else self._flaw)

    def _flaw(self, answer: Answer) -> Failure | None:
        found = read_completion(answer, chat=self.chat, path=self.endpoint)
        return replace(found, reason=self.client.shown(found.reason)) if isinstance(found, Failure) else None

    def _flaw_at_first(self, answer: Answer) -> Failure | None:
        """A page in place of JSON is then another kind of server, and stays one."""
        flaw = self._flaw(answer)
        if flaw is not None and not isinstance(answer.json(), dict):
            return replace(flaw, again=False, hint=URL_HINT)
        return flaw

    def _complete(self, request: SampleRequest, sampling: Sampling) -> Rollout:
        answer = self.ask(request, sampling)
        if not answer.is_good:
            raise refusal(self, answer)
        found = read_completion(answer, chat=self.chat, path=self.endpoint)
        assert not isinstance(found, Failure)  # `ask` saw to it
        reason, tokens = found.finish_reason, found.tokens
        cut = reason in LENGTH or (reason is None and tokens is not None and tokens >= sampling.max_tokens)
        return Rollout(request, (), found.text, "length" if cut else "stop", reported_tokens=tokens)


def connect(
    client: HttpClient,
    *,
    model: str | None,
    chat: bool,
    concurrency: int,
    prompt: Prompt,
    sampling: Sampling,
    note: Callable[[str], None],
    max_tokens_key: str = "max_tokens",
    other_prompts: Sequence[Prompt] = (),
) -> OpenAIEngine:
    """An engine whose server has shown, by one token after `prompt`, that it answers what it will be asked.

    Where it fails on `prompt` in a way that may be the prompt's fault, it is tried on the others.

    Raises:
        ServerError: nothing answers; it is no such server; it has no such model, or not this kind of completion.
    """
    name = model or _only_model(client)
    settings: dict[str, Any] = {"model": name, "chat": chat, "concurrency": concurrency}
    first_error: ServerError | None = None
    for one in (prompt, *other_prompts):
        try:
            engine = _tried(client, one, sampling, settings | {"max_tokens_key": max_tokens_key})
            break
        except ServerError as error:
            first_error = first_error or error
            if error.whole_server:
                raise first_error from None
    else:
        assert first_error is not None
        raise first_error
    if engine.dialect == "none":
        note(
            f"warning: {client.url} takes no top_k, min_p and repetition_penalty: what it applies for them is its own "
            "choice"
        )
    return engine


def _tried(client: HttpClient, prompt: Prompt, sampling: Sampling, settings: dict[str, Any]) -> OpenAIEngine:
    """An engine of the first dialect that the server takes."""
    trial, request = Sampling(sampling.temperature, sampling.top_p, 1), SampleRequest(prompt, 0, 0)
    for dialect in DIALECTS:
        engine = OpenAIEngine(client, dialect=dialect, **settings)
        answer = engine.ask(request, trial, first=True)
        if answer.status not in (400, 422):  # neither of which says reliably which parameter was not known
            break
    if not answer.is_good:
        raise refusal(engine, answer)
    return engine


def refusal(engine: OpenAIEngine, answer: Answer) -> ServerError:
    """An answer that is not 2xx as one line, with what to do."""
    message, hint = _refusal_words(engine, answer)
    whole_server = answer.status < 400 or answer.status in OF_THE_SERVER
    return ServerError(message, hint, cause=f"status_{answer.status}", whole_server=whole_server)


def _refusal_words(engine: OpenAIEngine, answer: Answer) -> tuple[str, str]:
    client, endpoint = engine.client, engine.endpoint
    words = client.shown(said(answer))
    message = f"{client.url}: {endpoint} answers with status {answer.status}: {words}"
    if answer.status in (401, 403):
        return message, "engine.api_key_env=NAME names the environment variable that holds the key"
    other_key = next(key for key in MAX_TOKENS_KEYS if key != engine.max_tokens_key)
    if answer.status in (400, 422) and _blames_key(said(answer), engine.max_tokens_key, other_key):
        return message, f"engine.max_tokens_key={other_key}"
    named = re.search(rf"(?<!\w){re.escape(engine.model)}(?!\w)", words) is not None
    if answer.status in (404, 405) and not named and "model" not in words.lower():
        known = _models(client)
        if known is None:
            return message, URL_HINT
        other = "false sends text" if engine.chat else "true sends chat messages"
        what = "chat completions" if engine.chat else "text completions"
        return f"{client.url}: this server offers no {what} ({message})", f"model.chat_template={other}"
    if answer.status == 404 or (named and answer.status == 400):
        known = _models(client)
        names = f"; the server lists {', '.join(known[:10])}" if known else ""
        return message, f"engine.model is '{engine.model}'{names}"
    if 300 <= answer.status < 400:
        return f"{client.url}: it redirects to another address, which is not followed", URL_HINT
    return message, "the request is refused as it is: see benchmark.max_tokens, temperature and top_p"


def _blames_key(words: str, sent: str, other: str) -> bool:
    """Whether a refusal is about the name of the limit, and not about its size, which vLLM says with both names."""
    about_names = r"unsupported|not supported|unknown|unrecogni[sz]ed|unexpected|extra|not permitted|forbidden|instead"
    is_named = any(re.search(rf"\b{key}\b", words) for key in (sent, other))
    return is_named and bool(re.search(rf"{about_names}|use\W+{other}", words, re.IGNORECASE))


def _only_model(client: HttpClient) -> str:
    """The name of the one model that the server lists."""
    answer = client.send("/models", first=True, hint="engine.model=NAME asks for no list of models")
    names = _names(answer)
    if answer.status in (401, 403):
        raise RunError(
            f"{client.url}: /models answers with status {answer.status}: {client.shown(said(answer))}",
            "engine.api_key_env=NAME names the environment variable that holds the key",
        )
    if names is None and answer.status == 200:
        raise _not_json(client, "/models", answer)
    if names is None:
        message = f"{client.url}: it lists no models: /models answers with status {answer.status}"
        raise RunError(f"{message}: {client.shown(said(answer))}", f"{URL_HINT}; engine.model=NAME asks for no list")
    if len(names) != 1:
        found = f"{len(names)} models: {', '.join(names[:10])}" if names else "no model"
        raise RunError(f"{client.url}: expected one model, the server lists {found}", "engine.model=NAME chooses one")
    return names[0]


def _models(client: HttpClient) -> list[str] | None:
    """What the server lists, for a hint; None where it lists nothing that can be read."""
    try:
        return _names(client.send("/models", first=True, retries=0))
    except RunError:
        return None


def _names(answer: Answer) -> list[str] | None:
    record = answer.json()
    rows = record.get("data") if isinstance(record, dict) and answer.status == 200 else None
    if not isinstance(rows, list):
        return None
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _not_json(client: HttpClient, path: str, answer: Answer) -> RunError:
    shown = client.shown(said(answer))
    return RunError(f"{client.url}: expected JSON of an OpenAI-compatible server from {path}, got {shown}", URL_HINT)
