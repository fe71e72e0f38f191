"""Sampling from a server that speaks the OpenAI protocol: vLLM, SGLang, llama.cpp, `transformers serve`.

It owns what is asked and how answers are read; `http` owns the transport. No model, no tokenizer and no torch here: the
server applies its own chat template and its own stop tokens, and its completions have no ids.

Servers fill options that a request leaves out from the model's generation_config (Qwen2.5-Instruct: penalty 1.05, top_k
20), so neutral values are sent along. They are no part of the protocol, hence `DIALECTS`: the first that the server
accepts is used.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dgpo_cli.engines.http import Answer, HttpClient, said
from dgpo_cli.errors import RunError
from dgpo_cli.types import Prompt, Rollout, SampleRequest, Sampling

LENGTH = ("length", "max_tokens")
UNFINISHED = ("abort", "error", "cancelled")
LARGEST_SEED = 2**31  # llama.cpp keeps 32 bits, and the largest of them means "random"
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


class OpenAIEngine:
    """Draws completions from a server, `concurrency` requests at a time. `connect` makes one."""

    def __init__(self, client: HttpClient, *, model: str, chat: bool, dialect: str, concurrency: int) -> None:
        self.client = client
        self.model = model
        self.chat = chat
        self.dialect = dialect
        self.concurrency = concurrency

    units_at_once = 1

    @property
    def endpoint(self) -> str:
        return "/chat/completions" if self.chat else "/completions"

    def generate(
        self, requests: list[SampleRequest], sampling: Sampling, lengths: Sequence[int] | None = None
    ) -> list[Rollout]:
        """One completion a request, in order; the first request that fails for good ends them all.

        Units mean nothing to a server: no `lengths` change what is drawn.

        Raises:
            RunError: the server is gone, refuses a request or gives an answer that is no completion.
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
                except Exception as error:  # handed to the caller's thread, where it is raised
                    finished.put((position, error))

        self.client.stop.clear()
        # Daemons: a signal does not have to wait for answers that may be minutes away.
        for _ in range(min(self.concurrency, len(requests))):
            threading.Thread(target=work, daemon=True).start()
        rollouts: dict[int, Rollout] = {}
        try:
            while len(rollouts) < len(requests):
                position, outcome = finished.get()
                if isinstance(outcome, Exception):
                    raise outcome
                rollouts[position] = outcome
        finally:
            ended.set()
            if len(rollouts) < len(requests):
                self.client.stop.set()
        return [rollouts[position] for position in range(len(requests))]

    def ask(self, request: SampleRequest, sampling: Sampling, *, first: bool = False) -> Answer:
        """The server's answer to one request, whatever it is."""
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
            "max_tokens": sampling.max_tokens,
            "seed": request.seed % LARGEST_SEED,
            **DIALECTS[self.dialect](sampling),
        }
        return self.client.send(self.endpoint, payload, first=first)

    def _complete(self, request: SampleRequest, sampling: Sampling) -> Rollout:
        answer = self.ask(request, sampling)
        if answer.status != 200:
            raise refusal(self, answer)
        return self.read(answer, request, sampling)

    def read(self, answer: Answer, request: SampleRequest, sampling: Sampling) -> Rollout:
        """The completion in an answer.

        Raises:
            RunError: it holds none.
        """
        record = answer.json()
        if not isinstance(record, dict):
            raise _not_json(self.client, self.endpoint, answer)
        choices = record.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        text = _text(choice, self.chat)
        if text is None or not isinstance(choice, dict):
            message = f"{self.client.url}: an answer of {self.endpoint} holds no completion"
            raise RunError(f"{message}: {self.client.shown(said(answer))}", "its log may say why")
        reason, tokens = choice.get("finish_reason"), _count(record.get("usage"))
        if reason in UNFINISHED:
            raise RunError(
                f"{self.client.url}: the server gave up a completion (finish_reason {reason})", "its log may say why"
            )
        cut = reason in LENGTH or (reason is None and tokens is not None and tokens >= sampling.max_tokens)
        return Rollout(request, (), text, "length" if cut else "stop", reported_tokens=tokens)


def connect(
    client: HttpClient,
    *,
    model: str | None,
    chat: bool,
    concurrency: int,
    prompt: Prompt,
    sampling: Sampling,
    note: Callable[[str], None],
) -> OpenAIEngine:
    """An engine whose server has shown, by one token after `prompt`, that it answers what it will be asked.

    Raises:
        RunError: nothing answers; it is no such server; it has no such model, or not this kind of completion.
    """
    name = model or _only_model(client)
    trial = Sampling(sampling.temperature, sampling.top_p, 1)
    request = SampleRequest(prompt, 0, 0)
    for dialect in DIALECTS:
        engine = OpenAIEngine(client, model=name, chat=chat, dialect=dialect, concurrency=concurrency)
        answer = engine.ask(request, trial, first=True)
        if answer.status not in (400, 422):  # neither of which says reliably which parameter was not known
            break
    if answer.status != 200:
        raise refusal(engine, answer)
    engine.read(answer, request, trial)
    if engine.dialect == "none":
        note(
            f"warning: {client.url} takes no top_k, min_p and repetition_penalty: what it applies for them is its own "
            "choice"
        )
    return engine


def refusal(engine: OpenAIEngine, answer: Answer) -> RunError:
    """An answer that is not 200 as one line, with what to do."""
    client, endpoint = engine.client, engine.endpoint
    words = client.shown(said(answer))
    message = f"{client.url}: {endpoint} answers with status {answer.status}: {words}"
    if answer.status in (401, 403):
        return RunError(message, "engine.api_key_env=NAME names the environment variable that holds the key")
    named = engine.model in words
    if answer.status in (404, 405) and not named and "model" not in words.lower():
        known = _models(client)
        if known is None:
            return RunError(message, URL_HINT)
        other = "false sends text" if engine.chat else "true sends chat messages"
        what = "chat completions" if engine.chat else "text completions"
        return RunError(f"{client.url}: this server offers no {what} ({message})", f"model.chat_template={other}")
    if answer.status == 404 or (named and answer.status == 400):
        known = _models(client)
        names = f"; the server lists {', '.join(known[:10])}" if known else ""
        return RunError(message, f"engine.model is '{engine.model}'{names}")
    if 300 <= answer.status < 400:
        return RunError(f"{client.url}: it redirects to another address, which is not followed", URL_HINT)
    return RunError(message, "the request is refused as it is: see benchmark.max_tokens, temperature and top_p")


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
        return _names(client.send("/models", first=True))
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


def _text(choice: Any, chat: bool) -> str | None:
    """The text of a choice. A reasoning model that was cut while it thought has a message without content."""
    if not isinstance(choice, dict):
        return None
    if not chat:
        text = choice.get("text")
        return text if isinstance(text, str) else None
    message = choice.get("message")
    content = message.get("content", "") if isinstance(message, dict) else None
    if content is None and isinstance(message, dict):
        content = ""
    return content if isinstance(content, str) else None


def _count(usage: Any) -> int | None:
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None
