"""What the engine asks of a server, how it reads the answers, and what it says of a server that is something else.

tests/commands/test_eval_openai.py runs it against `transformers serve`; here a small server answers as we choose.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from small_server import Reply, Request, SmallServer, completion, serving

from dgpo_cli.engines.http import HttpClient
from dgpo_cli.engines.openai_engine import OpenAIEngine, connect
from dgpo_cli.errors import RunError
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest, Sampling, Unanswered

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
    own = {name: changes.pop(name) for name in ("max_tokens_key", "other_prompts") if name in changes}
    return connect(
        client(server, **changes),
        model=model,
        chat=chat,
        concurrency=4,
        prompt=CHAT if chat else TEXT,
        sampling=SAMPLING,
        note=notes.append,
        **own,
    )


def requests(count: int, prompt: Prompt = TEXT) -> list[SampleRequest]:
    return [SampleRequest(prompt, sample, seed=2**40 + sample) for sample in range(count)]


def answered(found: Sequence[Rollout | Unanswered]) -> list[Rollout]:
    """All of them, and every one a completion."""
    rollouts = [one for one in found if isinstance(one, Rollout)]
    assert len(rollouts) == len(found)
    return rollouts


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
        [rollout] = answered(engine(server, chat=True).generate(requests(1, CHAT), SAMPLING))
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
        rollouts = answered(engine(server, concurrency=4).generate(asked, SAMPLING))
    assert [rollout.request for rollout in rollouts] == asked
    assert [rollout.text for rollout in rollouts] == [str(request.seed % 2**31) for request in asked]
    assert 2 <= most <= 4


def of_problems(count: int, samples: int = 1) -> list[SampleRequest]:
    """A request for each sample of so many problems, as they follow each other in a unit."""
    problems = [Problem(index, str(index), (("user", f"{index}+1?"),), "2") for index in range(count)]
    prompts = [Prompt(problem, problem.messages[0][1], ()) for problem in problems]
    return [SampleRequest(prompt, sample, seed=sample) for prompt in prompts for sample in range(samples)]


def causes(outcomes: Sequence[Rollout | Unanswered]) -> list[str]:
    return [one.text if isinstance(one, Rollout) else one.cause for one in outcomes]


@pytest.mark.parametrize(
    ("reply", "cause", "tries"),
    [
        (Reply({"error": {"message": "overloaded"}}), "error", 2),
        (Reply({"error": "overloaded", "choices": [{"text": "2", "finish_reason": "stop"}]}), "error", 2),
        (Reply({"choices": [{"text": "2", "error": {"message": "upstream"}}]}), "error", 2),
        (Reply({"object": "error", "message": "overloaded"}), "no_completion", 2),
        (Reply({"choices": []}), "no_completion", 2),
        (Reply({"choices": None}), "no_completion", 2),
        (Reply({"choices": [None]}), "no_completion", 2),
        (Reply({"choices": [{"text": None}]}), "no_completion", 2),
        (Reply([]), "no_completion", 2),
        (Reply(None), "no_completion", 2),
        (Reply(b"", 204), "no_completion", 2),
        (Reply(b""), "no_completion", 2),
        (Reply(b'{"choices": [{"te'), "no_completion", 2),
        (Reply(b"[" * 100_000), "no_completion", 2),
        (Reply(b"not gzip", headers={"Content-Encoding": "gzip"}), "connection_lost", 2),
        (PAGE, "no_completion", 2),
        (completion("2", finish_reason="abort"), "gave_up", 2),
        (completion("2", finish_reason="error"), "gave_up", 2),
        (completion("2", finish_reason="content_filter"), "content_filter", 1),
        (Reply({}, 408), "status_408", 2),
        (Reply({}, 409), "status_409", 2),
        (Reply({}, 425), "status_425", 2),
        (Reply({}, 429), "status_429", 2),
        (Reply({}, 429, {"Retry-After": "1e9"}), "status_429", 1),
        (Reply({}, 500), "status_500", 2),
        (Reply({}, 529), "status_529", 2),
        (Reply({"message": "maximum context length is 16"}, 400), "status_400", 1),
        (Reply({}, 413), "status_413", 1),
        (Reply({"detail": "flagged by moderation"}, 403), "status_403", 1),
        (Reply(b"", 302, {"Location": "/login"}), "status_302", 1),
        (Reply(b"", 302, {"Location": "http://[::bad"}), "connection_lost", 2),
    ],
)
def test_a_request_that_fails_for_good_is_left_unanswered_by_its_cause_and_the_others_go_on(
    reply: Reply, cause: str, tries: int
) -> None:
    def second(request: Request, _: int) -> Reply:
        assert request.payload is not None
        return reply if request.payload["prompt"] == "1+1?" else completion("fine")

    with serving(second) as server:
        outcomes = engine(server, concurrency=1).generate(of_problems(3), SAMPLING)
        asked = [payload["prompt"] for payload in server.posts()]
    assert causes(outcomes) == ["fine", cause, "fine"]
    assert asked == ["0+1?", *["1+1?"] * tries, "2+1?"]
    lost = outcomes[1]
    assert isinstance(lost, Unanswered)
    assert (lost.request.prompt.text, lost.ends, "\n" in lost.message, bool(lost.hint)) == ("1+1?", False, False, True)


@pytest.mark.parametrize(
    "reply",
    [Reply({"error": {"message": "busy"}}), Reply({"choices": []}), Reply({}, 408), Reply({}, 503), Reply(b"<html>")],
)
def test_a_bad_answer_is_asked_for_again(reply: Reply) -> None:
    with serving(lambda _, number: reply if number == 1 else completion("2")) as server:
        assert causes(engine(server).generate(requests(1), SAMPLING)) == ["2"]


def test_one_problem_that_always_fails_does_not_end_the_others() -> None:
    """Its 32 samples follow each other: a prompt beyond the context is refused as often."""

    def refuse(request: Request, _: int) -> Reply:
        assert request.payload is not None
        return Reply({"message": "too long"}, 400) if request.payload["prompt"] == "1+1?" else completion("fine")

    with serving(refuse) as server:
        outcomes = engine(server, concurrency=1).generate(of_problems(3, samples=32), SAMPLING)
    assert causes(outcomes) == ["fine"] * 32 + ["status_400"] * 32 + ["fine"] * 32


@pytest.mark.parametrize(
    ("status", "problems", "samples", "asked"), [(400, 50, 1, 8), (500, 50, 1, 8), (401, 1, 50, 8), (400, 1, 100, 64)]
)
def test_a_server_that_fails_for_all_is_asked_no_more_and_its_answers_stay(
    status: int, problems: int, samples: int, asked: int
) -> None:
    """8 problems in a row, 8 requests where the whole server is at fault, or 64 of few problems."""
    with serving(lambda _, number: completion("fine") if number <= 3 else Reply({"error": "gone"}, status)) as server:
        mended = engine(server, concurrency=1)
        mended.client.retries = 0
        outcomes = mended.generate(of_problems(problems, samples), SAMPLING)
        assert len(server.requests) <= 3 + asked + 1  # one more may be on its way
    assert causes(outcomes) == ["fine"] * 3 + [f"status_{status}"] * (problems * samples - 3)
    [*_, last] = outcomes
    assert isinstance(last, Unanswered)
    assert last.ends
    assert "gone" in last.message


def test_failures_in_a_row_are_counted_over_units_and_an_answer_ends_them() -> None:
    """7 fail, one is answered, 7 fail: never 8 in a row. Then an eighth does."""
    with serving(lambda _, number: completion("fine") if number == 8 else Reply({}, 400)) as server:
        asking = engine(server, concurrency=1)
        units = [asking.generate([request], SAMPLING) for request in of_problems(16)]
    ends = [isinstance(one, Unanswered) and one.ends for [one] in units]
    assert ends == [False] * 15 + [True]


def test_a_server_error_between_completions_is_tried_again() -> None:
    with serving(lambda _, number: Reply({}, 500) if number == 2 else completion(str(number))) as server:
        rollouts = answered(engine(server, concurrency=1).generate(requests(3), SAMPLING))
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
        [rollout] = answered(engine(server).generate(requests(1), SAMPLING))
    assert (rollout.finish_reason, rollout.completion_tokens, rollout.token_ids) == (expected, tokens, ())


def test_a_message_without_content_is_an_empty_completion() -> None:
    cut = Reply({"choices": [{"finish_reason": "length", "message": {"content": None, "reasoning_content": "Hm"}}]})
    with serving(lambda _, __: cut) as server:
        [rollout] = answered(engine(server, chat=True).generate(requests(1, CHAT), SAMPLING))
    assert (rollout.text, rollout.finish_reason) == ("", "length")


@pytest.mark.parametrize("tokens", [-1, 10**400, True, "3", 2.5])
def test_a_count_that_no_completion_has_is_no_count(tokens: Any) -> None:
    with serving(lambda _, __: completion("2", tokens=tokens)) as server:
        [rollout] = engine(server).generate(requests(1), SAMPLING)
    assert isinstance(rollout, Rollout)
    assert (rollout.text, rollout.completion_tokens, rollout.truncated) == ("2", None, False)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "2"}, "2"),
        ({"content": ""}, ""),
        ({"content": None, "tool_calls": [{"id": "1"}]}, ""),
        ({"content": None, "refusal": "no"}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}, ""),
        ({"content": []}, ""),
    ],
)
def test_the_text_of_a_message_is_its_content_whatever_stands_beside(message: dict[str, Any], text: str) -> None:
    reply = Reply({"choices": [{"finish_reason": "tool_calls", "message": message}], "error": None})
    with serving(lambda _, __: reply) as server:
        assert causes(engine(server, chat=True).generate(requests(1, CHAT), SAMPLING)) == [text]


@pytest.mark.parametrize(("name", "compress"), [("GZIP", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_answer_that_nobody_asked_for_is_read(name: str, compress: Callable[[bytes], bytes]) -> None:
    compressed = Reply(compress(completion("2").data), headers={"Content-Encoding": name})
    with serving(lambda _, __: compressed) as server:
        assert causes(engine(server).generate(requests(1), SAMPLING)) == ["2"]


OLD_NAME = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


def renamed(request: Request, _: int) -> Reply:
    """A server that takes max_completion_tokens alone."""
    takes_it = "max_completion_tokens" in (request.payload or {})
    return completion("2") if takes_it else Reply({"error": {"message": OLD_NAME}}, 400)


def test_the_limit_is_sent_by_the_name_that_was_chosen() -> None:
    with serving(renamed) as server:
        reach(server, max_tokens_key="max_completion_tokens").generate(requests(1), SAMPLING)
        assert [payload["max_completion_tokens"] for payload in server.posts()] == [1, 16]
        assert not any("max_tokens" in payload for payload in server.posts())


@pytest.mark.parametrize(
    ("key", "words", "hint"),
    [
        ("max_tokens", OLD_NAME, "engine.max_tokens_key=max_completion_tokens"),
        ("max_completion_tokens", "Unexpected fields: max_completion_tokens", "engine.max_tokens_key=max_tokens"),
        ("max_tokens", "'max_tokens' or 'max_completion_tokens' is too large: 9. The context has 8", "see benchmark."),
    ],
)
def test_a_refusal_of_the_limits_name_is_answered_with_the_other_name(key: str, words: str, hint: str) -> None:
    with serving(lambda _, __: Reply({"error": {"message": words}}, 400)) as server:
        assert hint in refused(server, max_tokens_key=key).partition(" | ")[2]


def test_a_first_prompt_that_is_too_long_does_not_end_the_trial() -> None:
    def short_alone(request: Request, _: int) -> Reply:
        assert request.payload is not None
        return completion("2") if request.payload["prompt"] == "short" else Reply({"message": "too long"}, 400)

    with serving(short_alone) as server:
        notes: list[str] = []
        assert reach(server, other_prompts=[Prompt(PROBLEM, "short", ())], notes=notes).dialect == "vllm"
        assert notes == []
        assert "too long" in refused(server, other_prompts=[Prompt(PROBLEM, "as long", ())])


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


def test_a_list_of_models_for_a_hint_is_asked_for_once() -> None:
    """Each of thousands of refused samples would wait for its retries."""
    missing = Reply({"message": "The model `served` does not exist."}, 404)
    with serving(lambda request, _: missing if request.payload else Reply({}, 503)) as server:
        assert "engine.model is 'served'" in refused(server, retries=3)
        assert [request.path for request in server.requests] == ["/v1/completions", "/v1/models"]


def test_a_model_whose_name_is_a_part_of_a_word_is_not_named() -> None:
    with serving(lambda _, __: Reply({"message": "the maximum is 16"}, 400)) as server:
        assert "see benchmark.max_tokens" in refused(server, model="m")


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
