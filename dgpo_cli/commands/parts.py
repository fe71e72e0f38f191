"""The parts that several commands build from their configuration: graders and prompts.

Policies and references are loaded in models/policy.py and models/reference.py.
"""

from __future__ import annotations

from dgpo_cli.commands.data_rows import data_rows
from dgpo_cli.config.groups import BenchmarkConfig, DataConfig
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.data.problems import ProblemSet
from dgpo_cli.data.prompts import make_prompts, template_line
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.models.policy import Policy
from dgpo_cli.rewards import READS_MATHEMATICS
from dgpo_cli.rewards.trial import columns_asked, try_grader
from dgpo_cli.terminal import say
from dgpo_cli.types import Grader, Problem, Prompt

SHOWN_GOLDS = 5


def load_data_prompts(
    data: DataConfig,
    model: ModelConfig,
    policy: Policy,
    grader: Grader,
    *,
    seed: int,
    max_completion_tokens: int,
    limit: int | None = None,
) -> list[Prompt]:
    """The prompts of a data option. Checks every row, tries the grader on one, and tells of the rows left out.

    Raises:
        DataError: rows that cannot be used, golds that no grader parses, prompts that do not fit the model's context.
    """
    problems = _gradable(_problems(data, grader, seed=seed), grader, data)
    prompts = make_prompts(
        problems[:limit],
        policy.model.tokenizer,
        template=data.template or model.template,
        chat_template=model.chat_template,
        system_prompt=data.system_prompt,
        max_context=policy.model.max_context,
        embedded_ids=policy.model.embedded_ids,
        max_completion_tokens=max_completion_tokens,
    )
    say_template(data.template or model.template, prompts, policy, "data.template")
    try_grader(grader, prompts[0])
    return prompts


def say_template(template: str, prompts: list[Prompt], policy: Policy, key: str) -> None:
    """What a template puts around each prompt, before it costs anything."""
    line = template_line(template, prompts, policy.model.tokenizer, key)
    if line:
        say(line)


def _problems(data: DataConfig, grader: Grader, *, seed: int) -> list[Problem]:
    """The rows of a data option as problems. Those that repeat a prompt are left out, and a line says how many."""
    if data.path is None:
        raise ConfigError("data.path is not set", "data.path=FILE, or a data option: data=digit_chain, gsm8k, ...")
    loaded = data_rows(
        data,
        seed=seed,
        reduce_golds=grader.name in READS_MATHEMATICS,
        columns=columns_asked(grader),
    )
    if loaded.duplicates:
        say(
            f"data: {loaded.duplicates} of {loaded.rows} rows repeat a prompt and are left out ({loaded.conflicts} of "
            "them with another gold)"
        )
    return loaded.problems


def _gradable(problems: list[Problem], grader: Grader, data: DataConfig) -> list[Problem]:
    """The problems whose gold the grader understands. Raises DataError if there is none, or for any other gold."""
    reasons = grader.gold_problems([problem.gold for problem in problems])
    bad = {problem.index: why for problem, why in zip(problems, reasons, strict=True) if why is not None}
    if bad:
        _report_bad_golds(bad, data)
        problems = [problem for problem in problems if problem.index not in bad]
    if not problems:
        raise DataError(f"{data.path}: no row is left to train on", "data.answer_key=KEY names another column")
    return problems


def benchmark_prompts(
    loaded: ProblemSet, benchmark: BenchmarkConfig, model: ModelConfig, policy: Policy
) -> list[Prompt]:
    """The problems of a benchmark as the model sees them.

    Raises:
        DataError: prompts that do not fit the model's context.
    """
    return make_prompts(
        loaded.problems,
        policy.model.tokenizer,
        template=benchmark.template or model.template,
        chat_template=model.chat_template,
        system_prompt=benchmark.system_prompt,
        max_context=policy.model.max_context,
        embedded_ids=policy.model.embedded_ids,
        max_completion_tokens=benchmark.max_tokens,
        limit_key="benchmark.max_tokens",
    )


def _report_bad_golds(bad: dict[int, str], data: DataConfig) -> None:
    shown = [f"row {index + 1}: {why}" for index, why in list(bad.items())[:SHOWN_GOLDS]]
    more = f" and {len(bad) - SHOWN_GOLDS} more" if len(bad) > SHOWN_GOLDS else ""
    if data.skip_bad_golds:
        say(f"data: {len(bad)} rows left out, their gold cannot be graded: {'; '.join(shown)}{more}")
        return
    problems = [Wrong(f"{data.path}: {line}") for line in shown]
    hint = (
        "data.answer_key=KEY names another column; data.skip_bad_golds=true leaves such rows out; reward=exact "
        "compares text, and reward.path=FILE:FUNCTION is your own grader"
    )
    last = Wrong(f"{len(bad)} golds in {data.path} cannot be graded", hint)
    raise DataError("", problems=(*problems, last))
