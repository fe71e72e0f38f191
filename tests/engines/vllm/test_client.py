"""What is believed of a vLLM server's answer. The answers that no good server gives come from a small one of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from small_server import Reply, Request, SmallServer, serving

from dgpo_cli.engines.vllm import client as asking
from dgpo_cli.engines.vllm.client import FIRST_WEIGHTS, Limits, VllmClient
from dgpo_cli.errors import ServerError
from dgpo_cli.types import Sampling

LIMITS = Limits(vocabulary_size=50, stop_ids=frozenset({7}))
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)
NAN = float("nan")


def choice(ids: list[Any], **changed: Any) -> dict[str, Any]:
    """A choice as the server writes it: ends at a stop id, or at max_tokens, drawn by the weights of step 3."""
    return {
        "index": 0,
        "finish_reason": "stop" if ids and ids[-1] == 7 else "length",
        "token_ids": ids,
        "logprobs": {"content": [{"token_id": one, "logprob": -0.5} for one in ids]},
        "weight_versions": [{"version": "3", "start": 0, "end": len(ids)}],
        **changed,
    }


def logprobs(*values: Any) -> dict[str, Any]:
    ids = [1, 2, 7]
    return {"content": [{"token_id": one, "logprob": value} for one, value in zip(ids, values, strict=False)]}


def spans(*ends: tuple[Any, int, int]) -> list[dict[str, Any]]:
    return [{"version": version, "start": start, "end": end} for version, start, end in ends]


@contextmanager
def client_of(reply: Callable[[Request, int], Reply]) -> Iterator[tuple[VllmClient, SmallServer]]:
    with serving(reply) as server:
        client = VllmClient(server.url.removesuffix("/v1"), LIMITS, timeout_seconds=5.0)
        yield client, server
        client.close()


def asked(answer: Any, sampling: Sampling = SAMPLING, version: str | None = "3") -> Any:
    reply = answer if isinstance(answer, Reply) else Reply({"choices": [answer]})
    with client_of(lambda request, number: reply) as (client, _):
        return client.complete([1, 2], seed=5, sampling=sampling, version=version)


def test_a_good_answer_is_taken_as_it_is() -> None:
    drawn = asked(choice([1, 2, 7], logprobs=logprobs(-0.5, -1.5, 1e-7)))
    assert drawn.token_ids == (1, 2, 7)
    assert drawn.logprobs == (-0.5, -1.5, 0.0)  # rounding above 0 is 0
    assert (drawn.finish_reason, drawn.version) == ("stop", "3")
    assert asked(choice([1, 2, 3, 4])).finish_reason == "length"
    assert asked(choice([1, 7]), version=None).version == "3"


def test_greedy_tokens_are_certain() -> None:
    assert asked(choice([1, 2, 7]), Sampling(0.0, 1.0, 4)).logprobs == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (choice([1, 50, 7]), "none of the 50"),
        (choice([1, -1, 7]), "none of the 50"),
        (choice([1, True, 7]), "none of the 50"),
        (choice([]), "none of the 50"),
        (choice([1, 2, 7], logprobs=None), "no log-probs for 3 tokens"),
        (choice([1, 2, 7], logprobs=logprobs(-1.0, -1.0)), "2 log-probs for 3 tokens"),
        (choice([1, 2, 7], logprobs=logprobs(-1.0, None, -1.0)), "no log-prob for its token 2"),
        (choice([1, 2, 7], logprobs=logprobs(-1.0, -9999.0, -1.0)), "-9999.0 as the log-prob of its token 2"),
        (choice([1, 2, 7], logprobs=logprobs(-1.0, NAN, -1.0)), "nan as the log-prob of its token 2"),
        (choice([1, 2, 7], logprobs=logprobs(-1.0, 0.2, -1.0)), "0.2 as the log-prob of its token 2"),
        (choice([2, 1, 7], logprobs=logprobs(-1.0, -1.0, -1.0)), "no log-prob for its token 2"),
        (choice([1, 2]), "ends by length after 2 of 4"),
        (choice([1, 2, 3, 4, 5]), "ends by length after 5 of 4"),
        (choice([7, 2, 7]), "ends by stop after 3 of 4"),
        (choice([1, 2, 7], finish_reason="length"), "ends by length after 3 of 4"),
        (choice([1, 2, 7], finish_reason="abort"), "gave up"),
        (Reply({"choices": []}), "holds no completion"),
        (Reply(b"<html>login</html>"), "an HTML page"),
        (Reply({"error": {"message": "no such model"}}, status=404), "status 404: no such model"),
        (Reply({"error": "too long"}, status=400), "status 400: too long"),
        (Reply(b"busy", status=503), "status 503: busy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_none_is_refused(answer: Any, said: str) -> None:
    with pytest.raises(ServerError, match=said) as caught:
        asked(answer)
    assert caught.value.problems[0].hint


@pytest.mark.parametrize(
    "versions",
    [
        None,
        [],
        spans(("2", 0, 3)),
        spans(("2", 0, 2), ("3", 2, 3)),
        spans(("3", 0, 2)),
        spans(("3", 1, 3)),
        spans((3, 0, 3)),
        spans(("default", 0, 3)),
    ],
    ids=str,
)
def test_a_token_of_other_weights_than_the_steps_is_stale(versions: Any) -> None:
    with pytest.raises(ServerError, match="the weights of step 3") as caught:
        asked(choice([1, 2, 7], weight_versions=versions))
    assert caught.value.cause == "stale_weights"


def test_an_evaluation_takes_tokens_of_the_servers_first_weights_alone() -> None:
    first = choice([1, 7], weight_versions=spans(("default", 0, 2)))
    assert asked(first, version=FIRST_WEIGHTS).version == "default"
    with pytest.raises(
        ServerError, match="drawn by the weights that the server was started with, got one by those of 3"
    ):
        asked(choice([1, 7]), version=FIRST_WEIGHTS)


def test_a_server_that_hangs_is_not_waited_for_as_long_as_for_a_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "HEALTH_SECONDS", 0.3)
    end = threading.Event()

    def hang(request: Request, number: int) -> Reply:
        end.wait()
        return Reply(b"")

    with serving(hang) as server:
        client = VllmClient(server.url.removesuffix("/v1"), LIMITS, timeout_seconds=600.0)
        assert not client.is_up()
        end.set()


def test_a_request_says_everything_that_shapes_a_sample() -> None:
    """Each of these has another default in some model's generation_config."""
    with client_of(lambda request, number: Reply({"choices": [choice([7])]})) as (client, server):
        client.complete([4, 5], seed=2**63 - 1, sampling=Sampling(0.7, 0.9, 4))
        [payload] = server.posts()
    assert server.requests[0].path == "/inference/v1/generate"
    assert payload["token_ids"] == [4, 5]
    assert payload["sampling_params"] == {
        "n": 1,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": 2**63 - 1,
        "max_tokens": 4,
        "min_tokens": 0,
        "ignore_eos": True,
        "stop_token_ids": [7],
        "logprobs": 0,
        "detokenize": False,
        "skip_special_tokens": False,
    }


def replying(answers: dict[str, Reply]) -> Callable[[Request, int], Reply]:
    return lambda request, number: answers.get(request.path, Reply(b"", status=404))


def test_a_server_tells_whether_it_is_well() -> None:
    answers = {"/health": Reply(b"")}
    with client_of(replying(answers)) as (client, _):
        assert client.is_up()
        answers.clear()
        assert not client.is_up()
    assert not client.is_up()  # nothing listens there any more
