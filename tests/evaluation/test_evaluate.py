"""Evaluation with a real model and engine: continued equals uninterrupted, and k grows without drawing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.core.intervals import MeanReward
from dgpo_cli.data.prompts import make_prompts
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.evaluate import Progress, evaluate
from dgpo_cli.evaluation.results import EvaluationResult
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.stop_ids import stop_token_ids
from dgpo_cli.types import ColumnsAsked, GradeRequest, Problem, Prompt, Rollout, SampleRequest, Sampling, Verdict

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_tokens=6)
BATCH_SIZE = 8


class LengthGrader:
    """Right when the completion has an even number of characters, which is its answer. Long ones have none."""

    name = "length"

    def __init__(self) -> None:
        self.requests: list[GradeRequest] = []

    def columns_asked(self) -> ColumnsAsked:
        return ColumnsAsked()

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        self.requests += requests
        return [self._verdict(len(request.completion)) for request in requests]

    def _verdict(self, length: int) -> Verdict:
        if length > 12:
            return Verdict(0.0, False, None, "no_answer")
        return Verdict(float(length % 2 == 0), length % 2 == 0, str(length % 4))

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        return [None] * len(golds)

    def check(self, sample: GradeRequest) -> None: ...

    def close(self) -> None: ...


class Killed(Exception):
    pass


class CountingEngine:
    """The real engine, with the units it was given written down; dies before unit number `dies_at`."""

    def __init__(self, engine: TransformersEngine, dies_at: int | None = None, units_at_once: int = 1) -> None:
        self.engine = engine
        self.facts = replace(engine.facts, units_at_once=units_at_once)
        self.dies_at = dies_at
        self.units: list[list[SampleRequest]] = []

    def load(self, version: int) -> None:
        self.engine.load(version)

    def close(self) -> None:
        self.engine.close()

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout]:
        if len(self.units) == self.dies_at:
            raise Killed
        self.units += self.engine.units(requests)
        return self.engine.generate(requests, sampling)

    @property
    def drawn(self) -> int:
        return sum(map(len, self.units))


@pytest.fixture(scope="module")
def model(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


@pytest.fixture
def engine(model: LanguageModel) -> Callable[..., CountingEngine]:
    stop_ids = stop_token_ids(model.tokenizer, model.model.generation_config, False)

    def make(dies_at: int | None = None, units_at_once: int = 1) -> CountingEngine:
        real = TransformersEngine(model, stop_ids=stop_ids, batch_size=BATCH_SIZE)
        return CountingEngine(real, dies_at, units_at_once)

    return make


def prompts(model: LanguageModel, count: int) -> list[Prompt]:
    """Prompts of different lengths, so that padding is at work."""
    problems = [Problem(i, f"id{i}", (("user", "count " + "1 2 3 " * (i % 3) + str(i)),), "7") for i in range(count)]
    return make_prompts(
        problems,
        model.tokenizer,
        template="plain",
        chat_template=False,
        system_prompt=None,
        max_context=model.max_context,
        max_completion_tokens=6,
    )


def run(engine: Any, prompts: list[Prompt], folder: Path | None, k: int, **changes: Any) -> EvaluationResult:
    options: dict[str, Any] = {
        "benchmark": "b",
        "k": k,
        "sampling": SAMPLING,
        "seed": 0,
        "batch_size": BATCH_SIZE,
        "pass_at": [1],
        "folder": folder,
    }
    return evaluate(engine, changes.pop("grader", LengthGrader()), prompts, **options | changes)


def sorted_lines(folder: Path) -> list[bytes]:
    return sorted((folder / "samples.jsonl").read_bytes().splitlines())


def results(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "results.json").read_text())
    del record["seconds"]
    return record


def test_an_evaluation_writes_what_the_contract_says(model: LanguageModel, engine: Any, tmp_path: Path) -> None:
    some = prompts(model, 5)
    seen: list[Progress] = []
    found = run(engine(), some, tmp_path, 3, pass_at=[1, 3], model="random", progress=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert sorted((line["index"], line["sample"]) for line in lines) == [(i, s) for i in range(5) for s in range(3)]
    assert list(lines[0]) == [
        "index", "problem_id", "sample", "prompt", "completion", "answer", "gold", "correct", "reward", "error",
        "finish_reason", "completion_tokens",
    ]  # fmt: skip
    assert all(line["prompt"] == some[line["index"]].text and line["gold"] == "7" for line in lines)
    record = json.loads((tmp_path / "results.json").read_text())
    assert record == found.as_record()
    assert (record["n_problems"], record["n_samples"], record["avg_at_k"]["k"]) == (5, 15, 3)
    assert record["avg_at_k"]["value"] == pytest.approx(sum(line["correct"] for line in lines) / 15)
    assert 0 < record["avg_at_k"]["value"] < 1  # the random model gives both kinds, or the tests here show nothing
    cut = [line for line in lines if line["finish_reason"] == "length"]
    assert record["truncated_fraction"] == len(cut) / 15
    assert all(line["completion_tokens"] == 6 for line in cut)
    assert record["no_answer_fraction"] * 15 == record["errors"].get("no_answer", 0)
    assert record["sampling"] == {"temperature": 1.0, "top_p": 0.9, "max_tokens": 6, "seed": 0}
    manifest = record["manifest"]
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["grader"] == "length"
    assert {"data_sha256", "prompts_sha256", "sampling", "batch_size", "versions"} <= manifest.keys()
    assert seen[-1].done == seen[-1].total == 15
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert seen[-1].average == found.avg_at_k


def test_interrupted_and_continued_equals_uninterrupted(model: LanguageModel, engine: Any, tmp_path: Path) -> None:
    some = prompts(model, 11)  # two blocks of problems: eight units for k = 4
    run(engine(), some, tmp_path / "whole", 4)
    broken = tmp_path / "broken"
    for dies_at in (0, 3, 2):  # dies again and again
        with pytest.raises(Killed):
            run(engine(dies_at), some, broken, 4)
    assert not (broken / "results.json").exists()
    assert 0 < len(sorted_lines(broken)) < 44
    last = engine()
    run(last, some, broken, 4)
    assert len(last.units) == 3  # of eight
    assert sorted_lines(broken) == sorted_lines(tmp_path / "whole")
    assert results(broken) == results(tmp_path / "whole")


def place(request: SampleRequest) -> tuple[int, int]:
    return request.prompt.problem.index, request.sample


def test_units_that_are_drawn_side_by_side_are_those_that_follow_one_another(
    model: LanguageModel, engine: Any, tmp_path: Path
) -> None:
    """20 problems in batches of 8 are units of 8, 8 and 4 problems: none is cut where four are asked for together."""
    asked = prompts(model, 20)
    alone, together = engine(), engine(units_at_once=4)
    run(alone, asked, tmp_path / "alone", k=3)
    run(together, asked, tmp_path / "together", k=3)
    assert [list(map(place, unit)) for unit in together.units] == [list(map(place, unit)) for unit in alone.units]
    assert sorted({len(unit) for unit in together.units}) == [4, 8]
    files = [(tmp_path / name / "samples.jsonl").read_bytes() for name in ("alone", "together")]
    assert files[0] == files[1]
    assert results(tmp_path / "alone") == results(tmp_path / "together")


def test_a_unit_torn_by_a_kill_is_drawn_again_as_a_whole(model: LanguageModel, engine: Any, tmp_path: Path) -> None:
    some = prompts(model, 5)
    run(engine(), some, tmp_path / "whole", 2)
    torn = tmp_path / "torn"
    with pytest.raises(Killed):
        run(engine(1), some, torn, 2)
    content = (torn / "samples.jsonl").read_bytes()
    (torn / "samples.jsonl").write_bytes(content[: len(content) * 2 // 3])
    again = engine()
    run(again, some, torn, 2)
    assert [len(unit) for unit in again.units] == [5, 5]
    assert sorted_lines(torn) == sorted_lines(tmp_path / "whole")


def test_more_samples_later_equal_one_run_and_draw_only_what_is_missing(
    model: LanguageModel, engine: Any, tmp_path: Path
) -> None:
    some = prompts(model, 3)  # units of 1, 1, 2, 2, 2, ... samples
    run(engine(), some, tmp_path / "once", 16)
    grown = tmp_path / "grown"
    run(engine(), some, grown, 4)
    more = engine()
    run(more, some, grown, 16)
    assert more.drawn == 3 * 12
    assert sorted_lines(grown) == sorted_lines(tmp_path / "once")
    assert results(grown) == results(tmp_path / "once")


def test_k_inside_a_unit_keeps_only_its_samples_and_still_grows(
    model: LanguageModel, engine: Any, tmp_path: Path
) -> None:
    some = prompts(model, 2)  # units of 1, 1, 2, 4 samples
    run(engine(), some, tmp_path / "once", 8)
    grown = tmp_path / "grown"
    assert run(engine(), some, grown, 5).n_samples == 10
    assert len(sorted_lines(grown)) == 10
    more = engine()
    run(more, some, grown, 8)
    assert [len(unit) for unit in more.units] == [8]
    assert sorted_lines(grown) == sorted_lines(tmp_path / "once")


def test_a_finished_evaluation_draws_nothing_and_a_smaller_k_uses_its_first_samples(
    model: LanguageModel, engine: Any, tmp_path: Path
) -> None:
    some = prompts(model, 3)
    first = run(engine(), some, tmp_path, 4)
    again = engine()
    assert run(again, some, tmp_path, 4).avg_at_k == first.avg_at_k
    assert run(again, some, tmp_path, 2).n_samples == 6
    assert again.units == []
    assert run(engine(), some, None, 2).avg_at_k == run(again, some, tmp_path, 2).avg_at_k


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": Sampling(0.6, 0.9, 6)}, "sampling.temperature"),
        ({"seed": 1}, "sampling.seed"),
        ({"benchmark": "c"}, "benchmark"),
        ({"batch_size": 4}, "batch_size"),
        ({"manifest": {"model": {"weights_sha256": "1"}}}, "model.weights_sha256"),
    ],
)
def test_samples_of_another_evaluation_are_refused(
    model: LanguageModel, engine: Any, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    some = prompts(model, 2)
    run(engine(), some, tmp_path, 1)
    before = (tmp_path / "samples.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=f"samples of another evaluation: {named}") as caught:
        run(engine(), some, tmp_path, 1, **change)
    assert "overwrite=true" in caught.value.problems[-1].hint
    assert (tmp_path / "samples.jsonl").read_bytes() == before


def test_other_problems_are_refused(model: LanguageModel, engine: Any, tmp_path: Path) -> None:
    run(engine(), prompts(model, 2), tmp_path, 1)
    with pytest.raises(ConfigError, match="data_sha256"):
        run(engine(), prompts(model, 3), tmp_path, 1)


def test_each_sample_has_a_seed_of_its_own_that_names_problem_and_sample(model: LanguageModel, engine: Any) -> None:
    one, other = engine(), engine()
    run(one, prompts(model, 3), None, 4)
    run(other, prompts(model, 3), None, 4, seed=1)
    seeds = [request.seed for unit in one.units + other.units for request in unit]
    assert len(seeds) == len(set(seeds)) == 24


@pytest.mark.parametrize(("k", "pass_at"), [(4, [1, 8]), (4, [0]), (0, [])])
def test_impossible_k_is_refused_before_anything_is_drawn(
    model: LanguageModel, engine: Any, tmp_path: Path, k: int, pass_at: list[int]
) -> None:
    counting = engine()
    with pytest.raises(ConfigError, match=r"benchmark\.(k|pass_at)"):
        run(counting, prompts(model, 2), tmp_path / "new", k, pass_at=pass_at)
    assert counting.units == []
    assert not (tmp_path / "new").exists()


def test_the_grader_is_told_what_was_cut_off(model: LanguageModel, engine: Any) -> None:
    grader = LengthGrader()
    found = run(engine(), prompts(model, 5), None, 4, grader=grader)
    assert found.truncated_fraction is not None
    assert found.truncated_fraction > 0
    assert sum(request.truncated for request in grader.requests) == round(found.truncated_fraction * 20)


def test_a_score_without_right_or_wrong_is_a_mean_reward(model: LanguageModel, engine: Any, tmp_path: Path) -> None:
    class ScoreOnly(LengthGrader):
        def _verdict(self, length: int) -> Verdict:
            return Verdict(0.5, None)

    found = run(engine(), prompts(model, 2), tmp_path, 1, grader=ScoreOnly())
    assert found.avg_at_k is None
    assert found.reward == MeanReward(0.5, 0.0, None)  # equal rewards say nothing of their spread
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [(one["correct"], one["reward"]) for one in samples] == [(None, 0.5), (None, 0.5)]


def test_an_error_counts_as_wrong_whatever_the_grader_says(model: LanguageModel, engine: Any) -> None:
    class Late(LengthGrader):
        def _verdict(self, length: int) -> Verdict:
            return Verdict(0.0, None, None, "timeout")

    found = run(engine(), prompts(model, 2), None, 2, grader=Late())
    assert found.avg_at_k is not None
    assert found.avg_at_k.value == 0.0
    assert found.errors == {"timeout": 4}
