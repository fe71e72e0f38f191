"""Servers and trainer in turns on the same GPUs: the order of calls, and what fails. By a stand-in: see its file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.test_train import rows, train
from engines.vllm.test_engine import asked
from sleeping_server import SleepingServer, StandIns, sleeping

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import Dtype
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.engines import Served, completed
from dgpo_cli.engines.vllm import connect
from dgpo_cli.engines.vllm.engine import VllmEngine
from dgpo_cli.errors import RunError
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.policy import Policy
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Sampling

DRAW = "/inference/v1/generate"  # of the probe, too
ASLEEP = "/sleep?level=2&mode=abort"
AWAKE = ["/wake_up?tags=weights", "dgpo_verify", "dgpo_load", "/wake_up?tags=kv_cache"]  # and a push in between
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)


def order(server: SleepingServer) -> list[str]:
    """Its calls, where several draws after another are one."""
    return [call for call, _ in groupby(server.calls)]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SleepingServer]]:
    """Two stand-ins, in the place of servers that dgpo starts."""
    with sleeping(2) as made:
        monkeypatch.setattr(connect, "OwnServers", lambda *_: StandIns(made))
        yield made


@contextmanager
def engine_of() -> Iterator[VllmEngine]:
    model = load_model("bundled:tiny")
    policy = Policy(model, frozenset({model.tokenizer.eos_token_id}))
    served = Served(ModelConfig(path=model.path), Dtype.float32, trained=True, trainers=2)
    settings = EngineConfig(name="vllm", colocated=True, replicas=2, retries=0)
    with closing(connect.connect(settings, policy, served)) as engine:
        engine.prepare(64)
        yield engine


def test_each_step_wakes_pushes_draws_and_sleeps(servers: list[SleepingServer]) -> None:
    with engine_of() as engine:
        for step in (0, 1):
            engine.load(step)
            drawn = completed(engine.generate(asked(4), SAMPLING))
            assert {one.policy_step for one in drawn} == {step}
            assert engine.measured()["engine/probe_gap"] < 1e-3
            engine.rest()
            assert engine.measured().keys() == {"engine/turn_seconds"}
            with torch.no_grad():
                engine.policy.model.model.get_input_embeddings().weight.mul_(0.5)
    for server in servers:
        assert order(server) == [*AWAKE, DRAW, ASLEEP] * 2


def test_weights_that_did_not_move_are_pushed_again_if_the_servers_have_slept(servers: list[SleepingServer]) -> None:
    with engine_of() as engine:
        engine.load(0)
        engine.load(0)  # as after an evaluation: they are awake
        engine.rest()
        engine.rest()
        engine.load(0)
        assert completed(engine.generate(asked(1), SAMPLING))
    assert order(servers[0]).count("dgpo_load") == 2
    assert order(servers[0]).count(ASLEEP) == 1


def test_whoever_is_gone_has_nothing_to_give_back(servers: list[SleepingServer]) -> None:
    with engine_of() as engine:
        engine.load(0)
        servers[1].http.close()
        engine.rest()
    assert order(servers[0])[-1] == ASLEEP


def test_a_server_that_died_in_its_sleep_is_started_anew(servers: list[SleepingServer]) -> None:
    with engine_of() as engine:
        engine.load(0)
        engine.rest()
        servers[1].http.close()
        engine.load(1)
        assert len(completed(engine.generate(asked(8), SAMPLING))) == 8
    assert order(servers[0]) == [*AWAKE, DRAW, ASLEEP, *AWAKE, DRAW]
    assert order(servers[1]) == [*AWAKE, DRAW]


def test_a_server_that_cannot_sleep_ends_the_run(servers: list[SleepingServer]) -> None:
    with engine_of() as engine:
        engine.load(0)
        servers[1].fails["/sleep"] = 500
        with pytest.raises(RunError, match=f"{servers[1].url}: .*500"):
            engine.rest()


def test_a_server_that_stays_asleep_is_not_asked(servers: list[SleepingServer]) -> None:
    with engine_of() as engine:
        engine.load(0)
        engine.rest()
        servers[0].fails["/wake_up"] = 200  # it says nothing of being awake
        with pytest.raises(RunError, match=r"/wake_up\?tags=weights leaves the server None"):
            engine.load(1)
    assert order(servers[0])[-1] == "/wake_up?tags=weights"


def colocated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`engine.colocated` where there is no GPU; the arguments of a run."""
    monkeypatch.setattr("dgpo_cli.commands.train.check_gpus_to_share", lambda config: None)
    return ["engine=vllm", "engine.colocated=true", "steps=2", "optim.lr=1e-3", "rollout.prompts_per_step=2"]


def test_a_run_trains_only_while_its_servers_sleep(
    servers: list[SleepingServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Updater.run

    def watched(*args: Any, **named: Any) -> Any:
        for server in servers:
            assert server.asleep == {"weights", "kv_cache"}
            server.calls.append("training")
        return update(*args, **named)

    monkeypatch.setattr(Updater, "run", watched)
    assert train(tmp_path / "run", *colocated(monkeypatch), "eval.every=1", "benchmark.limit=2") == 0
    # After an evaluation the servers are awake, with the weights that draw the next step.
    step = [DRAW, ASLEEP, "training", *AWAKE]
    for server in servers:
        assert [call for call in order(server) if call != "dgpo_verify"] == [
            call for call in [*AWAKE, *step, *step, DRAW] if call != "dgpo_verify"
        ]
    for row in rows(tmp_path / "run/metrics.jsonl"):
        assert row["engine/turn_seconds"] > 0
        assert row["engine/logprob_gap_max"] < 2e-4
    assert [row["step"] for row in rows(tmp_path / "run/eval.jsonl")] == [0, 1, 2]


def test_without_a_gpu_nothing_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "engine=vllm", "engine.colocated=true") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert errors == ["error: engine.colocated: torch sees no GPU here, and vLLM's servers can sleep on GPUs alone"]
    assert not (tmp_path / "run/run.json").exists()


def test_a_server_that_cannot_wake_is_one_error_and_nothing_is_trained(
    servers: list[SleepingServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers[1].fails["/wake_up"] = 500
    assert train(tmp_path / "run", *colocated(monkeypatch)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "engine.colocated" in errors[0]
    assert "/wake_up" in errors[0]
    assert not (tmp_path / "run/checkpoints").exists() or not list((tmp_path / "run/checkpoints").iterdir())
    assert "training" not in order(servers[0])
