"""What draws the completions of `dgpo eval`: a model in this process, or a server, which needs no weights and no torch.

`dgpo train` and `dgpo rollout` need token ids and weights at hand, so they load a model themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.groups import BenchmarkConfig
from dgpo_cli.data.problems import ProblemSet
from dgpo_cli.data.prompts import untokenised_prompts
from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.manifest import files_sha256
from dgpo_cli.types import Prompt, Sampler, Sampling


@dataclass(frozen=True)
class Generator:
    """An engine with what belongs to it; one serves every benchmark of a command."""

    engine: Sampler
    model: str  # the name shown
    facts: dict[str, Any]  # its part of the manifest
    prompts: Callable[[ProblemSet, BenchmarkConfig], list[Prompt]]
    whole_units: bool  # whether a sample depends on those that are drawn with it


def sampling_of(benchmark: BenchmarkConfig) -> Sampling:
    return Sampling(benchmark.temperature, benchmark.top_p, benchmark.max_tokens)


def make_generator(config: EvalConfig, problems: ProblemSet, note: Callable[[str], None]) -> Generator:
    """The engine of a configuration; a server is tried on the first of `problems`.

    Raises:
        DgpoError: a model that cannot be loaded, or a server that is not what the configuration says.
    """
    return _server(config, problems, note) if config.engine.name == "openai" else _local(config)


def _local(config: EvalConfig) -> Generator:
    from dgpo_cli.commands.parts import benchmark_prompts
    from dgpo_cli.engines.transformers_engine import TransformersEngine
    from dgpo_cli.models.model_paths import weights_hash_files
    from dgpo_cli.models.placement import prepare_device
    from dgpo_cli.models.policy import load_policy

    settings = config.model
    placement = prepare_device(config.strategy, settings)
    policy = load_policy(settings, placement)
    facts = {
        "model": {
            "path": settings.path,
            "revision": getattr(policy.model.model.config, "_commit_hash", None) or settings.revision,
            "dtype": settings.dtype.name,
            "weights_sha256": files_sha256(weights_hash_files(str(settings.path))),
        },
        "engine": config.engine.name,
        "device": policy.model.device.type,
        "compute_dtype": placement.computes_in.name,
        "stop_ids": sorted(policy.stop_ids),
    }
    return Generator(
        TransformersEngine(policy.model, stop_ids=policy.stop_ids, batch_size=config.engine.batch_size),
        str(settings.path),
        facts,
        lambda problems, benchmark: benchmark_prompts(problems, benchmark, settings, policy),
        whole_units=True,
    )


def _server(config: EvalConfig, problems: ProblemSet, note: Callable[[str], None]) -> Generator:
    from dgpo_cli.engines.http import HttpClient
    from dgpo_cli.engines.openai_engine import connect

    def prompts(problems: ProblemSet, benchmark: BenchmarkConfig) -> list[Prompt]:
        return untokenised_prompts(
            problems.problems,
            template=benchmark.template or config.model.template,
            chat_template=config.model.chat_template,
            system_prompt=benchmark.system_prompt,
        )

    settings = config.engine
    first, *others = prompts(problems, config.benchmark)
    engine = connect(
        HttpClient(
            str(settings.url),
            api_key=_api_key(settings.api_key_env),
            retries=settings.retries,
            timeout_seconds=settings.timeout_seconds,
        ),
        model=settings.model,
        chat=config.model.chat_template,
        concurrency=settings.concurrency,
        prompt=first,
        other_prompts=others[-1:],  # the first may be the one that is too long
        sampling=sampling_of(config.benchmark),
        note=note,
        max_tokens_key=settings.max_tokens_key.value,
    )
    # Neither address nor key: the same model may be served elsewhere when the evaluation goes on.
    facts = {"model": {"name": engine.model}, "engine": settings.name, "endpoint": engine.endpoint}
    return Generator(engine, engine.model, {**facts, "dialect": engine.dialect}, prompts, whole_units=False)


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"engine.api_key_env: the environment variable {variable} is not set", f"export {variable}=")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"engine.api_key_env: {variable} holds characters that no key has", "write it again")
    return key
