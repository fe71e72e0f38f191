"""Who draws a step's rollouts and when: the order, the thread, and an engine with a model of its own in a real run."""

from __future__ import annotations

import copy
import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from collected_factory import COLLECTED

from dgpo_cli.cli import main
from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.crew import Crew
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.errors import RunError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.policy import Policy
from dgpo_cli.processes import SOLO
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.stopping import StopGuard, UnfinishedStep
from dgpo_cli.training.supply import Background, Supply
from dgpo_cli.types import EngineFacts, Rollout, SampleRequest, Sampling

MAIN = threading.main_thread().ident


class ApartEngine:
    """The in-process engine on a copy of the policy, which `load` brings up to date: as a server has its own."""

    shares_devices = False

    def __init__(self, policy: Policy, batch_size: int) -> None:
        self._policy = policy.model
        self._model = LanguageModel(
            copy.deepcopy(self._policy.model), self._policy.tokenizer, self._policy.path, self._policy.has_head
        )
        self._engine = TransformersEngine(self._model, stop_ids=policy.stop_ids, batch_size=batch_size)
        self._threads = torch.get_num_threads()
        self.drawn: list[tuple[int | None, bool]] = []  # version, whether the main thread drew
        self.drawing = False

    @property
    def facts(self) -> EngineFacts:
        return replace(self._engine.facts, shares_devices=self.shares_devices)

    def load(self, version: int) -> None:
        assert not self.drawing
        with torch.no_grad():
            for mine, theirs in zip(self._model.model.parameters(), self._policy.model.parameters(), strict=True):
                mine.copy_(theirs)
        self._engine.load(version)

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> Sequence[Rollout]:
        self.drawing = True
        self.drawn.append((self._engine.version, threading.get_ident() == MAIN))
        torch.set_num_threads(self._threads)  # a new thread has a number of its own
        rollouts = self._engine.generate(requests, sampling)
        self.drawing = False
        return rollouts

    def prepare(self, longest: int) -> None: ...

    def rest(self) -> None: ...

    def measured(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._engine.close()


def train(folder: Path, *overrides: str) -> int:
    small = ["logger=none", "benchmark.limit=8", "rollout.prompts_per_step=2", "rollout.group_size=4", "data.size=32"]
    return main(["train", f"hydra.run.dir={folder}", "steps=4", "optim.warmup_steps=0", *small, *overrides])


def numbers(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocked = ("time", "seconds/", "tokens/per_second", "memory/")
    return [{key: value for key, value in row.items() if not key.startswith(clocked)} for row in rows]


@pytest.mark.parametrize("overrides", [[], ["algo=dapo", "optim.minibatches=2"]], ids=["dgpo", "dapo"])
def test_a_thread_draws_what_would_be_drawn_before_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    made: list[ApartEngine] = []

    def make_engine(settings: EngineConfig, *, policy: Policy, **_: object) -> ApartEngine:
        made.append(ApartEngine(policy, settings.batch_size))
        return made[0]

    assert train(tmp_path / "first", "rollout.lag=1", "eval.every=2", *overrides) == 0
    monkeypatch.setattr("dgpo_cli.commands.build.make_engine", make_engine)
    assert train(tmp_path / "beside", "rollout.lag=1", "eval.every=2", *overrides) == 0
    assert numbers(tmp_path / "beside") == numbers(tmp_path / "first")
    versions = dict.fromkeys(made[0].drawn)  # the refills of dynamic sampling repeat one
    # Evaluation, steps 1 and 2, step 3, evaluation, step 4, evaluation.
    assert list(versions) == [(0, True), (0, False), (1, False), (2, True), (2, False), (4, True)]


APART = ["engine=vllm", "engine.urls=[http://127.0.0.1:9]", "engine.correction=none"]  # in its place, `apart`


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> list[ApartEngine]:
    """The engines of the runs of a test, each with a model of its own."""
    made: list[ApartEngine] = []

    def make_engine(settings: EngineConfig, *, policy: Policy, **_: object) -> ApartEngine:
        made.append(ApartEngine(policy, 16))
        return made[-1]

    monkeypatch.setattr("dgpo_cli.commands.build.make_engine", make_engine)
    return made


@pytest.mark.parametrize("lag", [0, 1])
def test_an_evaluation_beside_the_next_step_finds_what_one_before_it_finds(
    tmp_path: Path, apart: list[ApartEngine], lag: int
) -> None:
    settings = [*APART, f"rollout.lag={lag}", "eval.every=2", "optim.lr=1e-3", "checkpoint.every=3"]
    assert train(tmp_path / "between", *settings) == 0
    assert train(tmp_path / "beside", *settings, "eval.overlap=true") == 0
    assert numbers(tmp_path / "beside") == numbers(tmp_path / "between")
    for name in ("eval.jsonl", "checkpoints/best"):
        ours, theirs = ((tmp_path / run / name).read_text() for run in ("beside", "between"))
        assert _timeless(ours) == _timeless(theirs)
    for step in (0, 2, 4):
        name = f"evals/step_{step:06d}/samples.jsonl"
        assert (tmp_path / "beside" / name).read_bytes() == (tmp_path / "between" / name).read_bytes()
    # Step 1 is drawn before step 0 is evaluated; what is evaluated last waits for nothing.
    drawn = {0: [(0, True), (0, False), (1, True), (2, True), (2, False), (3, True), (4, True)]}
    drawn[1] = [(0, True), (0, False), (1, False), (2, False), (4, True)]
    assert list(dict.fromkeys(apart[1].drawn)) == drawn[lag]


def test_an_engine_on_the_trainers_devices_evaluates_before_the_next_step(
    tmp_path: Path, apart: list[ApartEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApartEngine, "shares_devices", True)
    assert train(tmp_path / "run", *APART, "eval.every=2", "eval.overlap=true") == 0
    assert all(by_the_main_thread for _, by_the_main_thread in apart[0].drawn)


def test_a_run_that_is_continued_evaluates_beside_the_step_that_was_cut_off(
    tmp_path: Path, apart: list[ApartEngine]
) -> None:
    whole = tmp_path / "whole"
    settings = [*APART, "eval.every=2", "optim.lr=1e-3", "checkpoint.every=3", "checkpoint.keep=9"]
    assert train(whole, *settings, "eval.overlap=true") == 0
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    assert sorted(path.name for path in (cut / "checkpoints").glob("step_*")) == [
        f"step_{step:06d}" for step in (2, 3, 4)
    ]
    for name in ("step_000003", "step_000004"):
        shutil.rmtree(cut / "checkpoints" / name)
    shutil.rmtree(cut / "evals/step_000002")
    rows = (cut / "eval.jsonl").read_text().splitlines(keepends=True)
    (cut / "eval.jsonl").write_text(rows[0])
    assert main(["train", f"resume={cut}"]) == 0
    assert numbers(cut) == numbers(whole)
    assert _timeless((cut / "eval.jsonl").read_text()) == _timeless("".join(rows))


def _timeless(rows: str) -> list[Any]:
    """Lines of eval.jsonl without the seconds that they took; of another file as they are."""
    if not rows.startswith("{"):
        return rows.splitlines()
    found = [json.loads(line) for line in rows.splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "time")} for row in found]


def supply(
    collect: Any, *, shares_devices: bool = False, guard: StopGuard | None = None, **settings: Any
) -> tuple[Supply, Background[Collected | None]]:
    class Engine:
        facts = EngineFacts(False, 1, True, shares_devices, computes_as_trained=False, manifest={})

    background: Background[Collected | None] = Background()
    arguments = {"lag": 1, "steps": 3} | settings
    made = Supply(collect, Engine(), Crew(SOLO), guard or StopGuard(0.0), background, **arguments)  # type: ignore[arg-type]
    return made, background


@pytest.mark.parametrize(("lag", "shares"), [(0, True), (0, False), (1, True), (1, False)])
def test_each_step_is_drawn_once_and_the_one_after_the_last_never(lag: int, shares: bool) -> None:
    asked: list[tuple[int, int]] = []

    def collect(step: int, draw: int) -> Collected:
        asked.append((step, draw))
        return replace(COLLECTED, next_draw=draw + 2)

    made, _ = supply(collect, shares_devices=shares, lag=lag)
    draw, begun = 0, []
    for step in (1, 2, 3):
        collected = made.take(step, draw)
        made.begin(step + 1, collected.next_draw)
        made.finish()
        begun.append(len(asked))
        assert (made.ahead is not None) == (lag == 1 and step < 3)
        draw = collected.next_draw
    assert asked == [(1, 0), (2, 2), (3, 4)]
    assert begun == ([1, 2, 3] if lag == 0 else [2, 3, 3])


def test_what_a_checkpoint_holds_is_taken_first_and_kept_until_the_step_is_finished() -> None:
    made, _ = supply(lambda step, draw: replace(COLLECTED, next_draw=0), ahead=COLLECTED, shares_devices=True)
    assert made.take(2, 0) is COLLECTED
    made.begin(3, 9)
    assert made.ahead is COLLECTED
    made.finish()
    assert made.ahead is not COLLECTED


def test_an_error_of_the_thread_is_raised_in_the_step() -> None:
    def collect(step: int, draw: int) -> Collected:
        if step == 2:
            raise RunError("the server is gone", "start it again")
        return COLLECTED

    made, _ = supply(collect)
    made.begin(2, made.take(1, 0).next_draw)
    with pytest.raises(RunError, match="the server is gone"):
        made.finish()


def test_an_evaluation_beside_a_step_comes_after_the_draw_and_raises_in_the_step() -> None:
    done: list[tuple[str, bool]] = []

    def note(name: str) -> None:
        done.append((name, threading.get_ident() == MAIN))

    def collect(step: int, draw: int) -> Collected:
        note(f"draw {step}")
        return COLLECTED

    made, _ = supply(collect)
    made.begin(2, made.take(1, 0).next_draw, lambda: note("evaluate"))
    made.finish()
    assert done == [("draw 1", True), ("draw 2", False), ("evaluate", False)]

    def fail() -> None:
        raise RunError("the server is gone", "start it again")

    made.begin(3, made.take(2, 0).next_draw, fail)
    with pytest.raises(RunError, match="the server is gone"):
        made.finish()


def test_a_signal_leaves_a_draw_that_is_late_and_the_step_unfinished() -> None:
    may_end = threading.Event()

    def collect(step: int, draw: int) -> Collected:
        if step == 2:
            may_end.wait(60)
        return COLLECTED

    guard = StopGuard(0.0)
    made, background = supply(collect, guard=guard)
    made.begin(2, made.take(1, 0).next_draw)
    guard._note(15)
    with pytest.raises(UnfinishedStep):
        made.finish()
    assert background.busy(0.0)
    may_end.set()
    background.close()
    assert not background.busy(0.0)


def test_idle_times_are_those_of_the_step() -> None:
    made, _ = supply(lambda step, draw: replace(COLLECTED, rollout_seconds=2.0), lag=0)
    made.take(1, 0)
    assert made.idle(5.0)["seconds/idle_engine"] == 3.0
    made.take(2, 0)
    assert made.idle(5.0)["seconds/idle_engine"] == 3.0
    assert 0.0 <= made.idle(5.0)["seconds/idle_trainer"] < 1.0
