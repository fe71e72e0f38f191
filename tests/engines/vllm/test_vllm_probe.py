"""The probe of log-probs, asked of small servers of ours: how long its sequences are, and a server that goes away."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_server import Reply, Request, serving

from dgpo_cli.engines.vllm.probe import LENGTH, SEQUENCES, LostServer, probe_gap
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("bundled:tiny")


def models(longest: int) -> Reply:
    return Reply({"data": [{"id": "served", "max_model_len": longest}]})


def scores(payload: dict[str, Any]) -> Reply:
    """Every token of the prompt at -1 nat, the first one without a value, as vLLM writes it."""
    ids = payload["token_ids"]
    return Reply({"prompt_logprobs": [None, *({str(one): {"logprob": -1.0}} for one in ids[1:])], "choices": []})


@pytest.mark.parametrize(("longest", "asked"), [(4096, LENGTH), (LENGTH + 1, LENGTH), (20, 19), (3, 2)])
def test_sequences_leave_room_for_a_token_in_the_shortest_server(
    longest: int, asked: int, model: LanguageModel
) -> None:
    def reply(request: Request, number: int) -> Reply:
        return models(longest) if request.payload is None else scores(request.payload)

    with serving(reply) as server:
        gap, _ = probe_gap([server.url.removesuffix("/v1")], model, torch.float32)
        lengths = [len(payload["token_ids"]) for payload in server.posts()]
        assert lengths == [asked] * SEQUENCES
        assert all(asked + payload["sampling_params"]["max_tokens"] <= longest for payload in server.posts())
    assert gap > 0


def test_a_server_that_fails_at_the_probe_is_lost_and_said_to_be(model: LanguageModel) -> None:
    def reply(request: Request, number: int) -> Reply:
        return models(64) if request.payload is None else Reply({"error": "EngineCore is dead"}, status=500)

    with serving(reply) as server, pytest.raises(LostServer, match="EngineCore is dead") as raised:
        probe_gap([server.url.removesuffix("/v1")], model, torch.float32)
    assert raised.value.problems[0].hint
