"""Evaluation between the steps of a run: by the code of `dgpo eval`, and by the grader that it would use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dgpo_cli.commands.parts import benchmark_prompts
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.evaluation_reward import reward_of_evaluation
from dgpo_cli.config.groups import BenchmarkConfig, RewardConfig
from dgpo_cli.evaluation.benchmark import load_benchmark
from dgpo_cli.evaluation.evaluate import Progress, evaluate
from dgpo_cli.evaluation.manifest import reward_facts
from dgpo_cli.models.policy import Policy
from dgpo_cli.reporting.tables import duration
from dgpo_cli.rewards import load_grader
from dgpo_cli.rewards.trial import try_grader
from dgpo_cli.terminal import say, tell_progress
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.types import Engine, Prompt, Sampling


def evaluations_after_steps(
    config: TrainConfig, policy: Policy, engine: Engine, folder: RunFolder
) -> dict[str, StepEvaluation]:
    """What evaluates after a step, called with it, and gives its row of eval.jsonl, by the benchmark's name.

    Raises:
        ConfigError: the reward function cannot be called.
        DataError: a benchmark cannot be read, or does not fit the model.
    """
    return {name: _evaluation(config, name, policy, engine, folder) for name in config.benchmark_names}


def longest_evaluated(evaluations: Sequence[StepEvaluation]) -> int:
    """Tokens of the longest prompt and completion together; 0 without a benchmark."""
    return max((one.longest for one in evaluations), default=0)


def _evaluation(run: TrainConfig, name: str, policy: Policy, engine: Engine, folder: RunFolder) -> StepEvaluation:
    config = next(one for one in run.for_each_benchmark() if one.benchmark.name == name)
    benchmark = _shortened(config)
    reward = reward_of_evaluation(config)
    with closing(load_grader(reward)) as grader:
        loaded = load_benchmark(benchmark, grader=grader, limit=benchmark.limit)
        prompts = benchmark_prompts(loaded, benchmark, config.model, policy)
        if reward.name == "function":
            try_grader(grader, prompts[0])
    return StepEvaluation(
        config, benchmark, reward, prompts, policy, engine, folder, name if len(run.benchmark_names) > 1 else None
    )


@dataclass(frozen=True)
class StepEvaluation:
    """A benchmark of a run, on the policy as it is after a step."""

    config: TrainConfig
    benchmark: BenchmarkConfig
    reward: RewardConfig
    prompts: list[Prompt]
    policy: Policy
    engine: Engine
    folder: RunFolder
    below: str | None  # its folder below the step's, in a run with several benchmarks

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and completion together."""
        return max(len(prompt.token_ids) for prompt in self.prompts) + self.benchmark.max_tokens

    def __call__(self, step: int) -> dict[str, Any]:
        benchmark = self.benchmark
        with closing(load_grader(self.reward)) as grader:
            result = evaluate(
                self.engine,
                grader,
                self.prompts,
                benchmark=str(benchmark.name),
                k=benchmark.k,
                sampling=Sampling(benchmark.temperature, benchmark.top_p, benchmark.max_tokens),
                seed=self.config.seed,
                batch_size=self.config.engine.batch_size,
                pass_at=None if benchmark.pass_at is None else [k for k in benchmark.pass_at if k <= benchmark.k],
                folder=self.folder.evaluation_folder(step, self.below),
                model=self.config.model.name,
                manifest={"step": step, **_evaluated_with(self.config, self.policy), **reward_facts(self.reward)},
                progress=_tell_how_far,
                make_room=partial(self._make_room, step),
            )
        return {"step": step, **self.folder.evaluation_row(result.as_record())}

    def _make_room(self, step: int, differences: list[str]) -> None:
        """Samples from before a resume that changed the evaluation are put aside: no setting would make them fit."""
        aside = self.folder.set_evaluation_aside(self.folder.evaluation_folder(step, self.below))
        say(f"note: {differences[0]}: moved to {aside}, the evaluation begins anew")


def _tell_how_far(now: Progress) -> None:
    tell_progress(f"{now.done}/{now.total}, {duration(now.seconds_left)} left")


def _shortened(config: TrainConfig) -> BenchmarkConfig:
    """The benchmark with the samples and problems that training asks for."""
    benchmark = config.benchmark
    return replace(benchmark, k=config.eval.k or benchmark.k, limit=config.eval.limit or benchmark.limit)


def _evaluated_with(config: TrainConfig, policy: Policy) -> dict[str, Any]:
    """Facts that may change between two sessions of a run, and decide its samples to the last bit."""
    return {
        "model": {"path": config.model.path},
        "device": policy.model.device.type,
        "compute_dtype": policy.model.computes_in,
        "compile": config.strategy.compile,
    }
