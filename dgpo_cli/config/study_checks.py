"""Which studies `dgpo eval` can make of its other settings: localisation and the swap test."""

from __future__ import annotations

from collections.abc import Iterator

from dgpo_cli.config.commands import EvalConfig, RolloutConfig
from dgpo_cli.config.groups import Study
from dgpo_cli.errors import Problem

KNOWN_WRONG_TOKEN = ("digit_chain",)  # benchmarks whose gold is the only right completion


def distinct_reference(config: EvalConfig | RolloutConfig) -> Iterator[Problem]:
    """A command that does not train has no policy from before training."""
    if config.reference.name == "initial":
        message = "reference=initial: the model that is sampled is itself the initial policy here"
        yield Problem(message, "reference.path=FOLDER, or a model option: reference=tiny")


def studies(config: EvalConfig) -> Iterator[Problem]:
    """A study has the completions drawn by a model that is loaded here."""
    yield from distinct_reference(config)
    localises, swaps = config.study is Study.localisation, config.swap.path is not None
    if not (localises or swaps):
        return
    name = "study=localisation" if localises else "swap.path"
    if localises and swaps:
        yield Problem("study=localisation and swap.path: two studies", "a command for each")
    if config.engine.name != "transformers":
        yield Problem(
            f"engine={config.engine.name}: {name} scores the tokens of a model loaded here", "engine=transformers"
        )
    if config.benchmark.completions:
        yield Problem(f"benchmark.completions: {name} draws its own completions", "leave one of them out")
    if config.dry_run:
        yield Problem(f"dry_run: {name} is not planned", "without it, dry_run=true plans the evaluation alone")
    if localises and config.benchmark.name not in KNOWN_WRONG_TOKEN:
        message = f"study=localisation: the first wrong token of benchmark={config.benchmark.name} is not known"
        yield Problem(message, "benchmark=digit_chain, whose gold is the only right completion")
