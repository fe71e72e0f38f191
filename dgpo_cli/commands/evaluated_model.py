"""What `dgpo eval` draws from: a model that is loaded here, or a server's, which needs neither weights nor torch.

It owns what an evaluation has to know of a model beside its completions: the name that is shown, what goes into the
manifest, and how problems become its prompts. Engines are made in engines/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.groups import BenchmarkConfig
from dgpo_cli.data.problems import ProblemSet
from dgpo_cli.data.prompts import untokenised_prompts
from dgpo_cli.engines import HOLD_THE_MODEL, Trial, make_engine
from dgpo_cli.evaluation.manifest import files_sha256
from dgpo_cli.types import Engine, Prompt, Sampling


@dataclass(frozen=True)
class EvaluatedModel:
    """An engine with what belongs to its model; one serves all benchmarks of a command."""

    engine: Engine
    name: str
    manifest: dict[str, Any]  # its part of it
    prompts: Callable[[ProblemSet, BenchmarkConfig], list[Prompt]]


def sampling_of(benchmark: BenchmarkConfig) -> Sampling:
    return Sampling(benchmark.temperature, benchmark.top_p, benchmark.max_tokens)


def evaluated_model(config: EvalConfig, problems: ProblemSet, note: Callable[[str], None]) -> EvaluatedModel:
    """The model of a configuration, ready to draw. A server is tried on some of `problems`. Its engine is to be closed.

    Raises:
        DgpoError: a model that cannot be loaded, or a server that is not what the configuration says.
    """
    if config.engine.name in HOLD_THE_MODEL:
        return _on_a_server(config, problems, note)
    return _loaded_here(config)


def _loaded_here(config: EvalConfig) -> EvaluatedModel:
    from dgpo_cli.commands.parts import benchmark_prompts
    from dgpo_cli.models.model_paths import weights_hash_files
    from dgpo_cli.models.placement import prepare_device
    from dgpo_cli.models.policy import load_policy

    settings = config.model
    policy = load_policy(settings, prepare_device(config.strategy, settings))
    engine = make_engine(config.engine, policy=policy)
    model = {
        "path": settings.path,
        "revision": getattr(policy.model.model.config, "_commit_hash", None) or settings.revision,
        "dtype": settings.dtype.name,
        "weights_sha256": files_sha256(weights_hash_files(str(settings.path))),
    }
    return EvaluatedModel(
        engine,
        str(settings.path),
        {"model": model, **engine.facts.manifest},
        lambda problems, benchmark: benchmark_prompts(problems, benchmark, settings, policy),
    )


def _on_a_server(config: EvalConfig, problems: ProblemSet, note: Callable[[str], None]) -> EvaluatedModel:
    def prompts(problems: ProblemSet, benchmark: BenchmarkConfig) -> list[Prompt]:
        return untokenised_prompts(
            problems.problems,
            template=benchmark.template or config.model.template,
            chat_template=config.model.chat_template,
            system_prompt=benchmark.system_prompt,
        )

    benchmark = config.benchmark
    trial = Trial(prompts(problems, benchmark), sampling_of(benchmark), config.model.chat_template, note)
    engine = make_engine(config.engine, trial=trial)
    manifest = dict(engine.facts.manifest)
    return EvaluatedModel(engine, manifest["model"]["name"], manifest, prompts)
