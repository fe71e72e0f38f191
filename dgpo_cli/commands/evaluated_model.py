"""What `dgpo eval` draws from: a model that is loaded here, or a server's, which needs neither weights nor torch.

It owns what an evaluation has to know of a model beside its completions: the name that is shown, what goes into the
manifest, and how problems become its prompts. Engines are made in engines/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.groups import BenchmarkConfig
from dgpo_cli.data.problems import ProblemSet
from dgpo_cli.data.prompts import untokenised_prompts
from dgpo_cli.engines import HOLD_THE_MODEL, Served, Trial, make_engine
from dgpo_cli.evaluation.manifest import files_sha256
from dgpo_cli.types import Engine, Prompt, Sampling

if TYPE_CHECKING:
    from dgpo_cli.models.policy import Policy


@dataclass(frozen=True)
class EvaluatedModel:
    """An engine with what belongs to its model; one serves all benchmarks of a command."""

    engine: Engine
    name: str
    manifest: dict[str, Any]  # its part of it, beside the engine's
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
    return _served(config) if config.engine.name == "vllm" else _loaded_here(config)


def _loaded_here(config: EvalConfig) -> EvaluatedModel:
    from dgpo_cli.models.placement import prepare_device
    from dgpo_cli.models.policy import load_policy

    policy = load_policy(config.model, prepare_device(config.strategy, config.model))
    return _of_policy(config, policy, make_engine(config.engine, policy=policy))


def _served(config: EvalConfig) -> EvaluatedModel:
    """By servers of vLLM: prompts are made here, and no weights are loaded."""
    from dgpo_cli.models.described import describe
    from dgpo_cli.models.placement import prepare_device, threads_of

    policy = describe(config.model)
    computes_in = prepare_device(config.strategy, config.model).computes_in
    threads = threads_of(config.strategy, config.model)
    served = Served(config.model, computes_in, trained=False, trainers=0, threads=threads)
    return _of_policy(config, policy, make_engine(config.engine, policy=policy, served=served))


def _of_policy(config: EvalConfig, policy: Policy, engine: Engine) -> EvaluatedModel:
    from dgpo_cli.commands.parts import benchmark_prompts, say_template
    from dgpo_cli.models.model_paths import weights_hash_files
    from dgpo_cli.models.quantization import facts as quantization_facts

    settings = config.model

    def prompts(problems: ProblemSet, benchmark: BenchmarkConfig) -> list[Prompt]:
        found = benchmark_prompts(problems, benchmark, settings, policy)
        say_template(benchmark.template or settings.template, found, policy, "benchmark.template")
        return found

    model = {
        "path": settings.path,
        "revision": getattr(policy.model.model.config, "_commit_hash", None) or settings.revision,
        "dtype": settings.dtype.name,
        **quantization_facts(policy.model.quantization),
        "weights_sha256": files_sha256(weights_hash_files(str(settings.path))),
    }
    return EvaluatedModel(
        engine,
        str(settings.path),
        {"model": model},
        prompts,
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
    return EvaluatedModel(engine, engine.facts.manifest["model"]["name"], {}, prompts)
