"""Which values of a single key are possible, if its type cannot say it: at least 1, more than 0, a share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.errors import Problem

Rule = tuple[str, Callable[[Any], bool], str]  # key, is its value right, what was expected


def at_least(low: float, *names: str) -> list[Rule]:
    return [(name, lambda value: value >= low, f"at least {low}") for name in names]


def above(low: float, *names: str) -> list[Rule]:
    return [(name, lambda value: value > low, f"more than {low}") for name in names]


def a_share(*names: str) -> list[Rule]:
    return [(name, lambda value: 0 < value <= 1, "more than 0 and at most 1") for name in names]


GATING_RULES: list[Rule] = [
    ("gating.window", lambda value: value >= 1 and value % 2 == 1, "an odd number of at least 1"),
]


def below_one(*names: str) -> list[Rule]:
    return [(name, lambda value: 0 <= value < 1, "at least 0 and less than 1") for name in names]


TRAIN_RULES: list[Rule] = [
    *at_least(1, "steps", "rollout.prompts_per_step", "rollout.max_completion_tokens", "optim.minibatches"),
    *at_least(1, "optim.epochs", "optim.tokens_per_microbatch", "optim.max_nonfinite", "checkpoint.keep", "eval.k"),
    *at_least(1, "eval.limit", "algo.overlong.buffer_tokens", "model.lora.alpha"),
    *at_least(0, "algo.clip_low", "algo.clip_high", "algo.kl_coef", "optim.lr", "optim.final_lr_fraction"),
    *at_least(0, "optim.grad_norms_every", "optim.grad_cos_every"),
    *at_least(0, "optim.warmup_steps", "optim.weight_decay", "optim.grad_clip", "checkpoint.every", "eval.every"),
    *at_least(0, "logger.completions_every", "rollout.alternatives"),
    *at_least(-1, "logger.report_every"),
    *at_least(0, "checkpoint.grace_seconds", "reference.refresh_every", "algo.dynamic_sampling.max_refills"),
    *at_least(0, "model.lora.rank"),
    *above(0, "gating.temperature", "optim.eps"),
    *above(1, "algo.clip_dual", "engine.cap"),
    *a_share("rollout.top_p", "gating.top_fraction", "algo.max_probability_change"),
    *GATING_RULES,
    ("rollout.lag", lambda value: value in (0, 1), "0 or 1"),
]
ROLLOUT_RULES: list[Rule] = [
    *at_least(1, "limit", "rollout.group_size", "rollout.max_completion_tokens", "tokens_per_microbatch"),
    *at_least(0, "rollout.temperature", "rollout.alternatives", "mixed_rounds"),
    *at_least(2, "vocabulary_size"),
    *above(0, "gating.temperature"),
    *a_share("rollout.top_p", "gating.top_fraction"),
    *GATING_RULES,
]
DATA_RULES: list[Rule] = [
    *at_least(1, "data.limit", "data.size"),
    *at_least(3, "data.chain_steps"),
    *at_least(0, "data.filler"),
    *below_one("data.validation_fraction"),
]
BENCHMARK_RULES: list[Rule] = [
    *at_least(1, "benchmark.k", "benchmark.max_tokens", "benchmark.limit"),
    *at_least(3, "benchmark.chain_steps"),
    *at_least(0, "benchmark.temperature", "benchmark.filler"),
    *a_share("benchmark.top_p"),
    *below_one("benchmark.validation_fraction"),
]
SWAP_RULES: list[Rule] = [
    *a_share("swap.fraction"),
    ("swap.curve", lambda value: all(0 < one < 1 for one in value), "numbers above 0 and below 1"),
]
COMMON_RULES: list[Rule] = [
    *at_least(1, "engine.batch_size", "engine.concurrency", "strategy.threads"),
    *at_least(1, "strategy.num_processes", "strategy.sequence_parallel", "reward.workers"),
    *above(0, "strategy.connect_seconds", "strategy.stall_seconds"),
    *at_least(1, "engine.replicas", "engine.tensor_parallel", "engine.max_model_len"),
    *at_least(0, "engine.retries"),
    *above(0, "reward.timeout_seconds", "engine.timeout_seconds", "engine.start_seconds"),
    *a_share("engine.gpu_memory_fraction"),
]
SWEEP_RULES: list[Rule] = [
    *at_least(1, "sweep.jobs_at_once", "sweep.gpus_per_job"),
    *at_least(2, "sweep.max_seeds"),
    *at_least(0, "sweep.retries"),
]
COMPARE_RULES: list[Rule] = [("compare.alpha", lambda value: 0 < value < 1, "more than 0 and less than 1")]


def ranges(*rules: list[Rule]) -> Callable[[Any], Iterator[Problem]]:
    def check(config: Any) -> Iterator[Problem]:
        for name, is_right, expected in (rule for some in rules for rule in some):
            value = config
            for part in name.split("."):
                value = getattr(value, part)
            if value is not None and not is_right(value):
                message = f"{name}: expected {expected}, got {catalogue.show(value)}"
                yield Problem(message, f"dgpo help {name}")

    return check
