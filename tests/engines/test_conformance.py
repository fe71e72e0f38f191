"""What `types.Engine` promises, held to by every engine that a configuration can name: real ones of `make_engine`.

The server is a small one of ours that gives the same answer to the same prompt and seed. tests/commands/
test_eval_openai.py asks `transformers serve`; test_shared_engine.py draws in several processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_server import Reply, Request, completion, serving

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import Dtype
from dgpo_cli.config.keys import options
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.engines import ENGINES, Served, Trial, completed, make_engine
from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.policy import Policy
from dgpo_cli.types import Engine, Problem, Prompt, Rollout, SampleRequest, Sampling, Unanswered

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=6)
BATCH_SIZE = 4


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """That of the vLLM server of the test run."""
    return load_model("bundled:tiny")


def asked(model: LanguageModel, unit: Callable[[int], int | None] = lambda number: None) -> list[SampleRequest]:
    """Nine requests, three of each prompt; `unit` names that of a request by its number."""
    requests = []
    for number in range(9):
        text = ("12 + 30 =", "The quick brown fox counts", "a")[number // 3]
        ids = tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
        prompt = Prompt(Problem(number // 3, str(number // 3), (("user", text),), ""), text, ids)
        requests.append(SampleRequest(prompt, number % 3, derive_seed("test", number), unit=unit(number)))
    return requests


def answer(request: Request, _: int) -> Reply:
    assert request.payload is not None
    return completion(f"{request.payload['prompt']} {request.payload['seed'] * 7919 % 1000}")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, model: LanguageModel) -> Iterator[Engine]:
    settings = EngineConfig(name=request.param, batch_size=BATCH_SIZE)
    policy = Policy(model, frozenset({model.tokenizer.eos_token_id}))
    if request.param == "transformers":
        with closing(make_engine(settings, policy=policy)) as made:
            yield made
    elif request.param == "vllm":
        settings = replace(settings, urls=[request.getfixturevalue("vllm_url")])
        served = Served(ModelConfig(path=model.path), Dtype.float32, trained=True, trainers=0)
        with closing(make_engine(settings, policy=policy, served=served)) as made:
            made.prepare(SAMPLING.max_tokens + 40)
            yield made
    else:
        trial = Trial([asked(model)[0].prompt], SAMPLING, chat=False, note=lambda text: None)
        with serving(answer) as server:
            settings = replace(settings, url=server.url, model="served")
            with closing(make_engine(settings, trial=trial)) as made:
                yield made


def drawn(engine: Engine, requests: list[SampleRequest]) -> list[Rollout]:
    return completed(engine.generate(requests, SAMPLING))


def without_units(rollouts: list[Rollout]) -> list[Rollout]:
    return [replace(rollout, request=replace(rollout.request, unit=None)) for rollout in rollouts]


def test_every_engine_of_the_configuration_is_one_that_can_be_made() -> None:
    assert set(ENGINES) == set(options("engine"))
    with pytest.raises(ConfigError, match="got slow"):
        make_engine(EngineConfig(name="slow"))


def test_answers_come_in_the_order_of_the_requests_and_are_the_same_again(engine: Engine, model: LanguageModel) -> None:
    first = drawn(engine, asked(model))
    assert [rollout.request for rollout in first] == asked(model)
    assert len({rollout.text for rollout in first}) > 6
    assert drawn(engine, asked(model)) == first


def test_samples_depend_on_their_unit_at_most(engine: Engine, model: LanguageModel) -> None:
    """The same to the last bit, log-probs included, with other units around; without units, also one by one."""
    requests = asked(model, unit=lambda number: number // 3)
    together = drawn(engine, requests)
    assert [one for start in (6, 0, 3) for one in drawn(engine, requests[start : start + 3])] == (
        together[6:] + together[:6]
    )
    if not engine.facts.depends_on_unit:
        alone = [one for request in asked(model)[::-1] for one in drawn(engine, [request])]
        assert alone[::-1] == without_units(together)


def test_requests_without_a_unit_are_drawn_as_if_each_batch_were_one(engine: Engine, model: LanguageModel) -> None:
    free, cut = drawn(engine, asked(model)), drawn(engine, asked(model, unit=lambda number: number // BATCH_SIZE))
    assert free == without_units(cut)


def test_every_token_has_a_logprob_if_the_engine_says_so(engine: Engine, model: LanguageModel) -> None:
    for rollout in drawn(engine, asked(model)):
        if engine.facts.gives_logprobs:
            assert rollout.logprobs is not None
            assert len(rollout.logprobs) == len(rollout.token_ids) > 0
            assert all(logprob <= 0 for logprob in rollout.logprobs)
        else:
            assert rollout.logprobs is None


def test_rollouts_name_the_step_whose_weights_were_loaded_last(engine: Engine, model: LanguageModel) -> None:
    requests = asked(model)[:2]
    assert [rollout.policy_step for rollout in drawn(engine, requests)] == [None, None]
    try:
        engine.load(0)
    except RunError:  # its weights are its own: it must not say that they are the policy's
        assert [rollout.policy_step for rollout in drawn(engine, requests)] == [None, None]
        return
    for version in (0, 7, 7):
        engine.load(version)
        assert [rollout.policy_step for rollout in drawn(engine, requests)] == [version, version]


def test_loaded_weights_are_the_policys_as_they_are_then(random_model: Path) -> None:
    model = load_model(str(random_model))
    with closing(make_engine(EngineConfig(), policy=Policy(model, frozenset()))) as engine:
        engine.load(0)
        before = drawn(engine, asked(model))
        with torch.no_grad():
            model.model.get_output_embeddings().weight.mul_(1.5)
        engine.load(1)
        after = drawn(engine, asked(model))
    with closing(make_engine(EngineConfig(), policy=Policy(model, frozenset()))) as fresh:
        fresh.load(1)
        assert drawn(fresh, asked(model)) == after != before


def test_an_engine_says_what_it_is_in_words_that_a_manifest_can_hold(engine: Engine) -> None:
    assert engine.facts.units_at_once >= 1
    manifest = json.loads(json.dumps(dict(engine.facts.manifest)))
    assert manifest["engine"] in ENGINES
    assert engine.facts.shares_devices == (manifest.get("device") == "cpu")  # where the policy of this test is


def test_an_engine_may_be_closed_twice(engine: Engine) -> None:
    engine.close()
    engine.close()


def test_a_request_without_an_answer_ends_what_needs_all_of_them(model: LanguageModel) -> None:
    request = asked(model)[0]
    with pytest.raises(RunError, match="the server is busy") as caught:
        completed([Rollout(request, (1,), "a", "stop"), Unanswered(request, "timeout", "the server is busy", "wait")])
    assert caught.value.problems[0].hint == "wait"
