"""What the engine asks of a server, how it reads the answers, and what it says of a server that is something else.

tests/commands/test_eval_openai.py runs it against `transformers serve`; here a small server answers as we choose.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from small_server import Reply, Request, SmallServer, completion, serving

from dgpo_cli.engines.http import HttpClient
from dgpo_cli.engines.openai_engine import OpenAIEngine, connect
from dgpo_cli.errors import RunError
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling

PROBLEM = Problem(0, "0", (("user", "1+1?"),), "2")
TEXT = Prompt(PROBLEM, "1+1?", ())
CHAT = Prompt(PROBLEM, "short\n\n1+1?", (), (("system", "short"), ("user", "1+1?")))
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=16)
PAGE = Reply(b"<!DOCTYPE html><html><body>Welcome</body></html>")


def client(server: SmallServer, **changes: Any) -> HttpClient:
    settings: dict[str, Any] = {"retries": 1, "timeout_seconds": 5.0, "backoff_seconds": 0.01} | changes
    return HttpClient(server.url, **settings)


def engine(server: SmallServer, *, chat: bool = False, dialect: str = "none", concurrency: int = 4) -> OpenAIEngine:
    return OpenAIEngine(client(server), model="served", chat=chat, dialect=dialect, concurrency=concurrency)


def reach(server: SmallServer, *, model: str | None = "served", chat: bool = False, **changes: Any) -> OpenAIEngine:
    notes = changes.pop("notes", [])
    return connect(
        client(server, **changes),
        model=model,
        chat=chat,
        concurrency=4,
        prompt=CHAT if chat else TEXT,
        sampling=SAMPLING,
        note=notes.append,
    )


def requests(count: int, prompt: Prompt = TEXT) -> list[SampleRequest]:
    return [SampleRequest(prompt, sample, seed=2**40 + sample) for sample in range(count)]


def refused(server: SmallServer, **changes: Any) -> str:
    """The one line and its hint with which a connection fails."""
    with pytest.raises(RunError) as caught:
        reach(server, **changes)
    [problem] = caught.value.problems
    assert "\n" not in problem.message + problem.hint
    assert problem.hint
    return f"{problem.message} | {problem.hint}"


def test_every_sampling_option_is_sent() -> None:
    with serving(lambda _, __: completion("2")) as server:
        engine(server, dialect="vllm").generate(requests(1), SAMPLING)
        [request] = server.requests
    assert request.path == "/v1/completions"
    assert request.payload == {
        "model": "served",
        "prompt": "1+1?",
        "n": 1,
        "stream": False,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 16,
        "seed": 2**40 % 2**31,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }


def test_chat_sends_the_turns() -> None:
    with serving(lambda _, __: completion("2", chat=True)) as server:
        [rollout] = engine(server, chat=True).generate(requests(1, CHAT), SAMPLING)
        [request] = server.requests
    assert (rollout.text, request.path) == ("2", "/v1/chat/completions")
    assert request.payload is not None
    assert request.payload["messages"] == [{"role": "system", "content": "short"}, {"role": "user", "content": "1+1?"}]
    assert "prompt" not in request.payload


def test_requests_run_concurrently_and_come_back_in_order() -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def slow(request: Request, _: int) -> Reply:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        assert request.payload is not None
        time.sleep(0.02 * (1 + request.payload["seed"] % 3))
        with lock:
            at_once -= 1
        return completion(str(request.payload["seed"]))

    with serving(slow) as server:
        asked = requests(24)
        rollouts = engine(server, concurrency=4).generate(asked, SAMPLING)
    assert [rollout.request for rollout in rollouts] == asked
    assert [rollout.text for rollout in rollouts] == [str(request.seed % 2**31) for request in asked]
    assert 2 <= most <= 4


def test_the_first_request_that_fails_for_good_ends_the_others() -> None:
    def second_refused(_: Request, number: int) -> Reply:
        return Reply({"detail": "too long"}, 400) if number == 2 else completion("2")

    with serving(second_refused) as server:
        with pytest.raises(RunError, match="too long"):
            engine(server, concurrency=1).generate(requests(50), SAMPLING)
        assert len(server.requests) < 50


def test_a_server_error_between_completions_is_tried_again() -> None:
    with serving(lambda _, number: Reply({}, 500) if number == 2 else completion(str(number))) as server:
        rollouts = engine(server, concurrency=1).generate(requests(3), SAMPLING)
    assert [rollout.text for rollout in rollouts] == ["1", "3", "4"]


@pytest.mark.parametrize(
    ("given", "tokens", "expected"),
    [
        ("stop", 3, "stop"),
        ("eos_token", 3, "stop"),
        ("length", 16, "length"),
        (None, 16, "length"),
        (None, 15, "stop"),
        (None, None, "stop"),
    ],
)
def test_finish_reasons_become_stop_or_length(given: str | None, tokens: int | None, expected: str) -> None:
    with serving(lambda _, __: completion("2", finish_reason=given, tokens=tokens)) as server:
        [rollout] = engine(server).generate(requests(1), SAMPLING)
    assert (rollout.finish_reason, rollout.completion_tokens, rollout.token_ids) == (expected, tokens, ())


def test_a_completion_that_the_server_gave_up_is_no_completion() -> None:
    with (
        serving(lambda _, __: completion("2", finish_reason="abort")) as server,
        pytest.raises(RunError, match="abort"),
    ):
        engine(server).generate(requests(1), SAMPLING)


def test_a_message_without_content_is_an_empty_completion() -> None:
    cut = Reply({"choices": [{"finish_reason": "length", "message": {"content": None, "reasoning_content": "Hm"}}]})
    with serving(lambda _, __: cut) as server:
        [rollout] = engine(server, chat=True).generate(requests(1, CHAT), SAMPLING)
    assert (rollout.text, rollout.finish_reason) == ("", "length")


def knows(*names: str) -> Any:
    """A server that refuses every parameter beside the protocol's and `names`."""
    protocol = {"model", "prompt", "n", "stream", "temperature", "top_p", "max_tokens", "seed"}

    def reply(request: Request, _: int) -> Reply:
        unknown = sorted(set(request.payload or {}) - protocol - set(names))
        return Reply({"detail": f"Unexpected fields: {unknown}"}, 422) if unknown else completion("2")

    return reply


def test_neutral_options_are_sent_as_the_server_takes_them() -> None:
    notes: list[str] = []
    with serving(knows("top_k", "min_p", "repetition_penalty")) as server:
        assert reach(server, notes=notes).dialect == "vllm"
    with serving(knows("generation_config")) as server:
        assert reach(server, notes=notes).dialect == "transformers"
        assert json.loads(server.posts()[-1]["generation_config"])["do_sample"] is True
    assert notes == []


def test_options_that_a_server_does_not_take_are_left_out_and_that_is_said_once() -> None:
    notes: list[str] = []
    with serving(knows()) as server:
        connected = reach(server, notes=notes)
        tried = len(server.requests)
        connected.generate(requests(3), SAMPLING)
        assert len(server.requests) == tried + 3
        assert "top_k" not in server.posts()[-1]
    [note] = notes
    assert "takes no top_k, min_p and repetition_penalty" in note


def test_the_only_model_that_a_server_lists_is_taken() -> None:
    with serving(lambda request, _: completion("2") if request.payload else Reply({"data": [{"id": "m"}]})) as server:
        assert reach(server, model=None).model == "m"
        assert server.requests[0].path == "/v1/models"
        assert server.posts()[0]["model"] == "m"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply({"data": []}), "the server lists no model | engine.model=NAME"),
        (Reply({"data": [{"id": "a"}, {"id": "b"}]}), "the server lists 2 models: a, b | engine.model=NAME"),
        (PAGE, "expected JSON of an OpenAI-compatible server from /models, got an HTML page | engine.url="),
        (Reply(b"pong"), "from /models, got pong | engine.url="),
        (Reply({"detail": "Not Found"}, 404), "it lists no models: /models answers with status 404: Not Found | eng"),
        (Reply({"error": "no key"}, 401), "status 401: no key | engine.api_key_env=NAME"),
        (Reply({}, 302, {"Location": "/login"}), "it lists no models: /models answers with status 302"),
    ],
)
def test_a_server_whose_model_is_not_clear_is_described_in_one_line(reply: Reply, expected: str) -> None:
    with serving(lambda _, __: reply) as server:
        assert expected in refused(server, model=None)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (PAGE, "expected JSON of an OpenAI-compatible server from /completions, got an HTML page | engine.url="),
        (Reply({"usage": {}}), "an answer of /completions holds no completion"),
        (Reply({"choices": []}), "an answer of /completions holds no completion"),
        (Reply({"error": {"message": "engine dead"}}), "holds no completion: engine dead"),
        (Reply({"choices": [{"message": {"content": "2"}}]}), "an answer of /completions holds no completion"),
        (Reply({"object": "error", "message": "max_tokens is too large"}, 400), "status 400: max_tokens is too large"),
        (Reply(b"", 302, {"Location": "/login"}), "redirects to another address"),
    ],
)
def test_an_answer_that_is_no_completion_is_described_in_one_line(reply: Reply, expected: str) -> None:
    with serving(lambda _, __: reply) as server:
        assert expected in refused(server)


def test_an_unknown_model_is_named_beside_those_that_the_server_lists() -> None:
    missing = Reply({"message": "The model `served` does not exist.", "type": "NotFoundError"}, 404)
    with serving(lambda request, _: missing if request.payload else Reply({"data": [{"id": "other"}]})) as server:
        assert "does not exist. | engine.model is 'served'; the server lists other" in refused(server)


@pytest.mark.parametrize(("chat", "advice"), [(False, "true"), (True, "false")])
def test_a_server_without_one_kind_of_completions_is_named_with_the_other(chat: bool, advice: str) -> None:
    missing = Reply({"detail": "Not Found"}, 404)
    with serving(lambda request, _: missing if request.payload else Reply({"data": [{"id": "served"}]})) as server:
        line = refused(server, chat=chat)
    assert f"offers no {'chat' if chat else 'text'} completions" in line
    assert f"| model.chat_template={advice} sends" in line
