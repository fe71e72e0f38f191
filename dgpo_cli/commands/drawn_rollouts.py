"""The rollouts that `dgpo rollout` draws and grades; for a page, until there are right answers beside wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.mixed_steps import where_mixed
from dgpo_cli.commands.parts import load_data_prompts
from dgpo_cli.commands.scored_records import Worth
from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.data.prompts import make_prompts
from dgpo_cli.engines import Served, completed, make_engine
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.policy import Policy
from dgpo_cli.rewards import load_grader
from dgpo_cli.rewards.requests import of_rollout
from dgpo_cli.terminal import phase, say
from dgpo_cli.types import Grader, Problem, Prompt, Rollout, SampleRequest, Sampling, Verdict


@dataclass
class _Graded:
    """Rollouts in whole groups, each with its verdict."""

    rollouts: list[Rollout]
    verdicts: list[Verdict]

    def groups(self, size: int) -> Iterator[_Graded]:
        for start in range(0, len(self.rollouts), size):
            yield _Graded(self.rollouts[start : start + size], self.verdicts[start : start + size])

    def is_mixed(self) -> bool:
        return {True, False} <= {verdict.correct for verdict in self.verdicts}

    def add(self, other: _Graded) -> None:
        self.rollouts += other.rollouts
        self.verdicts += other.verdicts


def drawn(config: RolloutConfig, policy: Policy, served: Served) -> tuple[list[Rollout], Worth, list[str]]:
    """Prompts -> rollouts -> verdicts, and notes for the page. A prompt that was typed has no gold: nothing grades it.

    Raises:
        DgpoError: as data, grader and engine do.
    """
    rollout = config.rollout
    sampling = Sampling(rollout.temperature, rollout.top_p, rollout.max_completion_tokens)
    with ExitStack() as held:
        grader = held.enter_context(closing(load_grader(config.reward))) if config.prompt is None else None
        prompts = _prompts(config, policy, grader)
        engine = held.enter_context(closing(make_engine(config.engine, policy=policy, served=served)))

        def draw(chosen: list[Prompt], first: int) -> list[Rollout]:
            requests = _requests(config, chosen, first)
            with phase(f"drawing {len(requests)} completions"):
                return completed(engine.generate(requests, sampling))

        if grader is None:
            rollouts = draw(prompts, 0)
            return rollouts, _worth(config, rollouts, None), []

        def graded(chosen: list[Prompt], first: int) -> _Graded:
            rollouts = draw(chosen, first)
            with phase(f"grading {len(rollouts)} completions"):
                return _Graded(rollouts, list(grader.grade([of_rollout(one) for one in rollouts])))

        found = graded(prompts[: config.limit], 0)
        notes = _search(config, prompts, found, graded) if _searches(config, found) else []
    return found.rollouts, _worth(config, found.rollouts, found.verdicts), notes


def _searches(config: RolloutConfig, found: _Graded) -> bool:
    """Whether a page is made that would have nothing to compare: every group is right alone, or wrong alone."""
    known = all(verdict.correct is not None for verdict in found.verdicts)
    able = config.rollout.group_size > 1 and config.rollout.temperature > 0 and config.mixed_rounds > 0
    return (
        config.report and known and able and not any(one.is_mixed() for one in found.groups(config.rollout.group_size))
    )


def _search(
    config: RolloutConfig, prompts: list[Prompt], found: _Graded, graded: Callable[[list[Prompt], int], _Graded]
) -> list[str]:
    """Draw further prompts until a group is mixed, at most `mixed_rounds` times, and add what is. What came of it."""
    size, limit = config.rollout.group_size, config.limit
    right, total = sum(bool(verdict.correct) for verdict in found.verdicts), len(found.verdicts)
    say(f"note: no group has both right and wrong answers ({right} of {total} are right): drawing more")
    for number in range(1, config.mixed_rounds + 1):
        first = number * limit
        more = graded([prompts[place % len(prompts)] for place in range(first, first + limit)], first)
        right, total = right + sum(bool(verdict.correct) for verdict in more.verdicts), total + len(more.verdicts)
        mixed = [one for one in more.groups(size) if one.is_mixed()]
        for one in mixed:
            found.add(one)
        if mixed:
            note = (
                f"The first {limit} groups have no right answers beside wrong ones. {number * limit} more were drawn, "
                f"of which {len(mixed)} have both and are shown, too; {right} of all {total} completions are right."
            )
            say(f"note: {note}")
            return [note]
    note = (
        f"None of {total // size} groups of {size} has right answers beside wrong ones: {right} of {total} completions "
        "are right. Without a difference within a group advantages are 0, and credit moves nothing."
    )
    elsewhere = where_mixed(config.model.path)
    notes = [note, elsewhere] if elsewhere else [note]
    for text in notes:
        say(f"note: {text}")
    return notes


def _prompts(config: RolloutConfig, policy: Policy, grader: Grader | None) -> list[Prompt]:
    """The prompts of the data option, or the one that was typed: through the same template."""
    if grader is not None:
        return load_data_prompts(
            config.data,
            config.model,
            policy,
            grader,
            seed=config.seed,
            max_completion_tokens=config.rollout.max_completion_tokens,
            limit=config.limit * (1 + config.mixed_rounds) if config.report else config.limit,
        )
    problem = Problem(0, "prompt", (("user", config.prompt or ""),), "")
    if not (config.prompt or "").strip():
        raise ConfigError("prompt: expected text, got an empty prompt", "prompt='9 -5=? +4=? +1=? +1=? -4=?'")
    return make_prompts(
        [problem],
        policy.model.tokenizer,
        template=config.data.template or config.model.template,
        chat_template=config.model.chat_template,
        system_prompt=config.data.system_prompt,
        max_context=policy.model.max_context,
        embedded_ids=policy.model.embedded_ids,
        max_completion_tokens=config.rollout.max_completion_tokens,
    )


def _requests(config: RolloutConfig, prompts: list[Prompt], first: int) -> list[SampleRequest]:
    """Of all samples of these prompts, whose draws are numbered from `first` on."""
    return [
        SampleRequest(prompt, sample, derive_seed("rollout", config.seed, draw, sample), draw)
        for draw, prompt in enumerate(prompts, first)
        for sample in range(config.rollout.group_size)
    ]


def _worth(config: RolloutConfig, rollouts: list[Rollout], verdicts: list[Verdict] | None) -> Worth:
    nothing: list[float | None] = [None] * len(rollouts)
    if verdicts is None:
        return Worth([Verdict(0.0, None)] * len(rollouts), nothing, nothing, graded=False)
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    size, own_scores = config.rollout.group_size, config.reward.name == "function"
    graded = algorithm.rewards(rollouts, verdicts, group_size=size, own_scores=own_scores)
    advantages = list(algorithm.advantages(graded).tolist()) if size > 1 else nothing
    return Worth(verdicts, list(graded.final.tolist()), advantages, graded=True)
