"""The engine of vLLM servers, on a real server of the bundled model. tests/engines/test_conformance.py has the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import Dtype
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.engines import Served, completed, make_engine
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.engines.vllm.client import Limits, VllmClient
from dgpo_cli.engines.vllm.connect import connect
from dgpo_cli.engines.vllm.engine import VllmEngine
from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.policy import Policy
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.training.engine_gap import logprob_gap
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest, Sampling

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=24)
LONGEST = 64


@pytest.fixture
def policy_of_tiny() -> Policy:
    """That of the vLLM server of the test run, from disk: tests change it."""
    model = load_model("bundled:tiny")
    return Policy(model, frozenset({model.tokenizer.eos_token_id}))


@pytest.fixture
def engine(policy_of_tiny: Policy, vllm_url: str) -> Iterator[VllmEngine]:
    served = Served(ModelConfig(path=policy_of_tiny.model.path), Dtype.float32, trained=True, trainers=0)
    settings = EngineConfig(name="vllm", urls=[vllm_url], concurrency=8, retries=1)
    with closing(connect(settings, policy_of_tiny, served)) as made:
        made.prepare(LONGEST)
        yield made


def asked(count: int = 12) -> list[SampleRequest]:
    """Requests of four prompts, ids alone: nothing is tokenised."""
    requests = []
    for number in range(count):
        ids = tuple(range(5, 9 + number % 4))
        prompt = Prompt(Problem(number % 4, str(number % 4), (("user", ""),), ""), "", ids)
        requests.append(SampleRequest(prompt, number // 4, derive_seed("vllm", number)))
    return requests


def drawn(engine: VllmEngine, requests: list[SampleRequest], sampling: Sampling = SAMPLING) -> list[Rollout]:
    return completed(engine.generate(requests, sampling))


def test_a_sample_depends_on_its_seed_and_on_nothing_beside_it(engine: VllmEngine) -> None:
    engine.load(0)
    requests = asked()
    together = drawn(engine, requests)
    assert len({rollout.token_ids for rollout in together}) > 4
    order = [5, 0, 11, 3, 8, 1, 10, 2, 9, 4, 7, 6]
    shuffled = drawn(engine, [requests[number] for number in order])
    assert [one.token_ids for one in shuffled] == [together[number].token_ids for number in order]
    alone = [one for request in requests[:4] for one in drawn(engine, [request])]
    assert [one.token_ids for one in alone] == [one.token_ids for one in together[:4]]


def test_prompts_that_do_not_fit_one_pass_together_are_drawn_all_the_same(
    policy_of_tiny: Policy, vllm_url: str
) -> None:
    """A server on a CPU dies of a prompt that it computes in parts, if the sample has a seed."""
    settings = EngineConfig(name="vllm", urls=[vllm_url], concurrency=48, retries=0)
    served = Served(ModelConfig(path=policy_of_tiny.model.path), Dtype.float32, trained=True, trainers=0)
    ids = tuple(5 + place % 80 for place in range(200))
    prompt = Prompt(Problem(0, "0", (("user", ""),), ""), "", ids)
    requests = [SampleRequest(replace_first(prompt, number), 0, derive_seed("long", number)) for number in range(48)]
    with closing(connect(settings, policy_of_tiny, served)) as made:
        made.prepare(230)
        made.load(0)
        assert len(drawn(made, requests, Sampling(1.0, 1.0, 4))) == 48


def replace_first(prompt: Prompt, number: int) -> Prompt:
    """Another beginning, so that no cache holds the prompt already."""
    return dataclasses.replace(prompt, token_ids=(5 + number, *prompt.token_ids[1:]))


def test_greedy_tokens_and_texts_are_those_of_the_engine_in_this_process(engine: VllmEngine) -> None:
    engine.load(0)
    greedy = Sampling(0.0, 1.0, 24)
    here = TransformersEngine(engine.policy.model, stop_ids=engine.policy.stop_ids, batch_size=4)
    here.load(0)
    assert drawn(engine, asked(4), greedy) == here.generate(asked(4), greedy)


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_logprobs_are_those_that_the_trainer_computes(engine: VllmEngine, temperature: float) -> None:
    engine.load(0)
    rollouts = drawn(engine, asked(), dataclasses.replace(SAMPLING, temperature=temperature))
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    signals = score_rollouts(engine.policy.model, None, rollouts, lengths, temperature=temperature, tokens=4096)
    gap = logprob_gap(rollouts, signals)
    assert 0 < gap["engine/logprob_gap_mean"] <= gap["engine/logprob_gap_max"] < 2e-4


def test_pushed_weights_draw_from_then_on_and_are_measured(engine: VllmEngine) -> None:
    engine.load(0)
    before = drawn(engine, asked())
    assert engine.measured()["engine/probe_gap"] < 1e-3
    assert engine.measured() == {}
    with torch.no_grad():
        engine.policy.model.model.get_input_embeddings().weight.mul_(0.5)
    engine.load(1)
    after = drawn(engine, asked())
    assert {rollout.policy_step for rollout in after} == {1}
    assert [one.token_ids for one in after] != [one.token_ids for one in before]
    sizes = [tensor.numel() * 4 for tensor in engine.policy.model.model.parameters()]
    assert engine.measured()["engine/sync_bytes"] == sum(sizes)


def test_tokens_of_other_weights_than_the_loaded_are_refused(engine: VllmEngine, vllm_url: str) -> None:
    """Somebody else tells the server that its weights are of another step."""
    engine.load(3)
    client = VllmClient(vllm_url, Limits(99, frozenset()), timeout_seconds=30.0)
    client.http.send("/update_weight_version", {"new_version": "2"})
    with pytest.raises(RunError, match="the weights of step 3, got one by those of 2"):
        engine.generate(asked(1), SAMPLING)
    client.http.send("/update_weight_version", {"new_version": "3"})
    assert drawn(engine, asked(1))[0].policy_step == 3


def test_an_evaluation_refuses_a_server_that_a_training_has_pushed_to(engine: VllmEngine, vllm_url: str) -> None:
    engine.load(4)
    served = Served(ModelConfig(path=engine.policy.model.path), Dtype.float32, trained=False, trainers=0)
    settings = EngineConfig(name="vllm", urls=[vllm_url])
    with (
        closing(make_engine(settings, policy=engine.policy, served=served)) as made,
        pytest.raises(RunError, match="holds the weights of step 4"),
    ):
        made.prepare(LONGEST)


def test_a_server_for_shorter_sequences_is_refused(engine: VllmEngine) -> None:
    with pytest.raises(RunError, match="need up to 4096 tokens here, and the server takes 256"):
        engine.prepare(4096)


def test_the_manifest_says_what_samples_depend_on(engine: VllmEngine) -> None:
    manifest = engine.facts.manifest
    assert manifest["engine"] == "vllm"
    assert (manifest["dtype"], manifest["max_model_len"]) == ("float32", 256)
    assert str(manifest["vllm"]).startswith("0.")
    assert not engine.facts.depends_on_unit
    assert engine.facts.gives_logprobs
    assert not engine.facts.computes_as_trained


def test_a_server_that_is_not_ours_and_dies_leaves_its_requests_unanswered(policy_of_tiny: Policy) -> None:
    served = Served(ModelConfig(path=policy_of_tiny.model.path), Dtype.float32, trained=True, trainers=0)
    settings = EngineConfig(name="vllm", urls=["http://127.0.0.1:9"], retries=0)
    with (
        closing(connect(settings, policy_of_tiny, served)) as engine,
        pytest.raises(RunError, match="nothing listens there") as caught,
    ):
        engine.prepare(LONGEST)
    assert "engine.urls" in caught.value.problems[0].hint


def test_no_interpreter_with_vllm_is_one_error_with_the_commands(
    policy_of_tiny: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DGPO_VLLM_HOME", str(tmp_path))
    served = Served(ModelConfig(path=policy_of_tiny.model.path), Dtype.float32, trained=True, trainers=0)
    with pytest.raises(ConfigError, match="no vLLM in this interpreter") as caught:
        connect(EngineConfig(name="vllm"), policy_of_tiny, served)
    assert "pip install vllm" in caught.value.problems[0].hint
