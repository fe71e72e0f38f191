"""Collecting rollouts: data order, seeds, and dynamic sampling that is bounded and keeps draw order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.groups import (
    AlgoConfig,
    DynamicSamplingConfig,
    FilterBy,
    GatingConfig,
    OnExhausted,
    OverlongConfig,
)
from dgpo_cli.core.seeds import derive_seed, drawn_index
from dgpo_cli.errors import RunError
from dgpo_cli.training.collect import Collector
from dgpo_cli.types import (
    ColumnsAsked,
    EngineFacts,
    GradeRequest,
    Problem,
    Prompt,
    Rollout,
    SampleRequest,
    Sampling,
    Verdict,
)

SAMPLING = Sampling(1.0, 1.0, 8)


class WritingEngine:
    """Completions that name their prompt and sample: what is tested here is what becomes of them."""

    facts = EngineFacts(False, 1, gives_logprobs=False, shares_devices=False, computes_as_trained=False, manifest={})

    def __init__(self) -> None:
        self.asked: list[SampleRequest] = []

    def prepare(self, longest: int) -> None: ...

    def load(self, version: int) -> None: ...

    def rest(self) -> None: ...

    def measured(self) -> dict[str, float]:
        return {}

    def close(self) -> None: ...

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout]:
        self.asked += requests
        return [
            Rollout(request, (1, 2), f"{request.prompt.problem.index}/{request.sample}", "stop") for request in requests
        ]


class GoldGrader:
    """Right where the gold lists the sample: gold '0,2' makes samples 0 and 2 of its group right."""

    name = "listed"

    def columns_asked(self) -> ColumnsAsked:
        return ColumnsAsked()

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        verdicts = []
        for request in requests:
            right = request.completion.split("/")[1] in request.gold.split(",")
            verdicts.append(Verdict(float(right), right))
        return verdicts

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        return [None] * len(golds)

    def check(self, sample: GradeRequest) -> Verdict:
        return Verdict(0.0, False)

    def close(self) -> None: ...


def prompts(golds: list[str]) -> list[Prompt]:
    return [Prompt(Problem(i, str(i), (("user", ""),), gold), str(i), (3,)) for i, gold in enumerate(golds)]


def collector(golds: list[str], *, per_step: int = 2, **algo: object) -> tuple[Collector, WritingEngine]:
    engine = WritingEngine()
    algorithm = Algorithm(replace(AlgoConfig(), **algo), GatingConfig(), max_completion_tokens=8)  # type: ignore[arg-type]
    made = Collector(
        prompts(golds), engine, GoldGrader(), algorithm, SAMPLING, seed=0, group_size=3, prompts_per_step=per_step
    )
    return made, engine


def drawn(collected_rollouts: list[Rollout]) -> list[int]:
    return [rollout.request.draw for rollout in collected_rollouts[::3]]


def test_prompts_follow_the_epoch_order_and_seeds_the_draw() -> None:
    made, engine = collector(["0"] * 5)
    result = made.collect(4, 7)
    assert drawn(result.rollouts) == [7, 8]
    assert result.next_draw == 9
    assert [request.prompt.problem.index for request in engine.asked[::3]] == [
        drawn_index(0, 7, 5),
        drawn_index(0, 8, 5),
    ]
    assert engine.asked[4].seed == derive_seed("sample", 0, 4, 8, 1)


def test_an_epoch_draws_every_prompt_once() -> None:
    made, engine = collector(["0"] * 6, per_step=3)
    for step in range(4):
        made.collect(step + 1, 3 * step)
    indices = [request.prompt.problem.index for request in engine.asked[::3]]
    assert sorted(indices[:6]) == sorted(indices[6:]) == list(range(6))
    assert indices[:6] != indices[6:]


def test_without_dynamic_sampling_every_group_is_kept() -> None:
    made, _ = collector(["", "0,1,2"])
    result = made.collect(1, 0)
    assert len(result.rollouts) == 6
    assert result.refills == 0
    assert result.rewards.right_and_wrong_groups() == (1, 1)


def test_dynamic_sampling_refills_to_the_first_groups_by_draw_order() -> None:
    golds = ["0", "", "0,1,2", "", "1", "2", "", "0,1"]
    made, engine = collector(golds, dynamic_sampling=DynamicSamplingConfig(enabled=True))
    result = made.collect(1, 0)
    informative = [d for d in range(16) if golds[drawn_index(0, d, 8)] in ("0", "1", "2", "0,1")]
    assert drawn(result.rollouts) == informative[:2]
    assert not result.exhausted
    assert result.next_draw == len(engine.asked) // 3
    assert len(result.sampled.correct) == len(engine.asked)
    assert result.rewards.right_and_wrong_groups() == (0, 0)


class PartialGrader(GoldGrader):
    """All wrong, the later samples the better."""

    name = "function"

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        return [Verdict(float(request.completion.split("/")[1]), False) for request in requests]


@pytest.mark.parametrize(("by", "refills", "trained"), [(FilterBy.spread, 0, 6), (FilterBy.correct, 10, 0)])
def test_scores_that_differ_in_all_wrong_groups_need_no_refill(by: FilterBy, refills: int, trained: int) -> None:
    made, _ = collector([""] * 4, dynamic_sampling=DynamicSamplingConfig(enabled=True, by=by))
    made.grader = PartialGrader()
    result = made.collect(1, 0)
    assert (result.refills, len(result.rollouts)) == (refills, trained)


def test_exhausted_refills_train_on_what_there_is() -> None:
    made, engine = collector([""] * 4 + ["0"], dynamic_sampling=DynamicSamplingConfig(enabled=True, max_refills=1))
    result = made.collect(1, 0)
    assert result.exhausted
    assert result.refills == 1
    assert len(result.rollouts) < 6
    assert len(engine.asked) // 3 <= 4


def test_exhausted_refills_stop_the_run_where_asked() -> None:
    settings = DynamicSamplingConfig(enabled=True, max_refills=2, on_exhausted=OnExhausted.stop)
    made, _ = collector([""] * 3, dynamic_sampling=settings)
    with pytest.raises(RunError, match="0 of 2 groups after 2 refills in step 5"):
        made.collect(5, 0)


def test_the_length_term_comes_after_the_filter() -> None:
    # All wrong with equal lengths stays all wrong, whatever the punishment makes of the rewards.
    made, _ = collector(
        ["", "0"],
        dynamic_sampling=DynamicSamplingConfig(enabled=True, max_refills=0),
        overlong=OverlongConfig(enabled=True, buffer_tokens=7),
        reward_wrong=-1.0,
    )
    result = made.collect(1, 0)
    assert len(result.rollouts) == 3
    # 2 tokens of 8, buffer 7: 1/7 into the ramp, half the range of 2
    assert result.rewards.final.tolist() == pytest.approx([1 - 1 / 7, -1 - 1 / 7, -1 - 1 / 7])
    assert result.rewards.raw.tolist() == [1.0, -1.0, -1.0]
