"""Sampling from a server that speaks the OpenAI protocol: vLLM, SGLang, llama.cpp, `transformers serve`.

It owns the request and the consequence of failures; `http` owns the transport, `answers` the reading of an answer,
`refusals` the words for a server that says no. No model, no tokenizer and no torch here: the server applies its own
chat template and its own stop tokens, and its completions have no ids.

Servers fill options that a request leaves out from the model's generation_config (Qwen2.5-Instruct: penalty 1.05, top_k
20), so neutral values are sent along. They are no part of the protocol, hence `DIALECTS`: the first that the server
accepts is used.

A request that fails for good is left unanswered, and the others go on. If failures come in a row, too many to be the
fault of a few prompts, no more is asked.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dgpo_cli.engines.answers import read_completion
from dgpo_cli.engines.http import Answer, Failure, HttpClient, said
from dgpo_cli.engines.refusals import URL_HINT, Asked, names_in, refusal
from dgpo_cli.errors import RunError, ServerError
from dgpo_cli.types import EngineFacts, Prompt, Rollout, SampleRequest, Sampling, Unanswered

LENGTH = ("length", "max_tokens")
LARGEST_SEED = 2**31  # llama.cpp keeps 32 bits, and the largest of them means "random"
PROBLEMS_IN_A_ROW = 8  # that fail without an answer between them; one prompt may be at fault, so many are not
REQUESTS_IN_A_ROW = 64  # of however few problems


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


Outcomes = queue.SimpleQueue[tuple[int, Rollout | Exception]]  # of requests, named by their position


def _emptied(finished: Outcomes) -> Iterator[tuple[int, Rollout | Exception]]:
    """The outcomes that have come in already."""
    while not finished.empty():
        yield finished.get()


class _Streak:
    """Failures in a row, over all threads and units."""

    def __init__(self) -> None:
        self.requests = 0
        self.of_the_server = 0
        self.problems: set[int] = set()

    def add(self, request: SampleRequest, error: ServerError) -> bool:
        """Whether it is time to stop: the fault cannot be that of one prompt."""
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
            computes_as_trained=False,
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

    @property
    def asked(self) -> Asked:
        return Asked(self.endpoint, self.model, self.chat, self.max_tokens_key)

    def load(self, version: int) -> None:
        """Raises RunError: which weights a server has is the choice of whoever started it."""
        raise RunError(f"{self.client.url}: this server holds its own weights, and takes none of step {version}")

    def prepare(self, longest: int) -> None:
        """Nothing is to be started."""

    def rest(self) -> None:
        """It holds nothing that training needs."""

    def measured(self) -> dict[str, float]:
        """Nothing is pushed anywhere."""
        return {}

    def close(self) -> None:
        """Let requests that wait for another try end."""
        self.client.stop.set()

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout | Unanswered]:
        """A completion a request, in order, or why there is none. Units mean nothing to a server.

        After too many failures without an answer between them, no more is asked, and the requests that are left end
        with the last error: failures of `PROBLEMS_IN_A_ROW` problems, of as many requests if the whole server is at
        fault, or of `REQUESTS_IN_A_ROW` requests.
        """
        self.client.stop.clear()
        ended = threading.Event()
        finished = self._ask_in_threads(requests, sampling, ended)
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

    def _ask_in_threads(self, requests: list[SampleRequest], sampling: Sampling, ended: threading.Event) -> Outcomes:
        """Where the outcomes come in, in whatever order. After `ended` no thread begins another request."""
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for position in range(len(requests)):
            todo.put(position)
        finished: Outcomes = queue.SimpleQueue()

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

        # Daemons: a signal does not have to wait for answers that may be minutes away.
        for _ in range(min(self.concurrency, len(requests))):
            threading.Thread(target=work, daemon=True).start()
        return finished

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
            raise refusal(self.client, answer, self.asked)
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
    """An engine whose server has shown, by one token after `prompt`, that it answers such requests.

    If it fails on `prompt` in a way that may be the prompt's fault, it is tried on the others.

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
        raise refusal(client, answer, engine.asked)
    return engine


def _only_model(client: HttpClient) -> str:
    """The name of the one model that the server lists."""
    answer = client.send("/models", first=True, hint="engine.model=NAME asks for no list of models")
    names = names_in(answer)
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


def _not_json(client: HttpClient, path: str, answer: Answer) -> RunError:
    shown = client.shown(said(answer))
    return RunError(f"{client.url}: expected JSON of an OpenAI-compatible server from {path}, got {shown}", URL_HINT)
