"""Memory of a process in each phase of a command, from its configuration. How much a phase takes is in `memory`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.gating_needs import gates_noise, scores_each_update, scores_first
from dgpo_cli.config.groups import BenchmarkConfig
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.batches import Data, per_process, prompt_tokens, rollouts_a_step, updates_a_step
from dgpo_cli.planning.layout import Layout
from dgpo_cli.planning.memory import (
    Batch,
    Generation,
    Memory,
    Setting,
    generating,
    noise_phase,
    sampling_phase,
    scoring_pass,
    standing,
    training_phases,
)


def phases_of_training(
    config: TrainConfig,
    model: Architecture,
    setting: Setting,
    layout: Layout,
    batch: Batch,
    prompt: int,
    benchmark: Data,
) -> dict[str, Memory]:
    """`prompt`: the longest one's tokens. `benchmark`: what is known of the problems that are evaluated in training."""
    generation = Generation(
        rows=min(config.engine.batch_size, rollouts_a_step(config)),  # a unit is dealt out whole, to one process
        width=prompt + config.rollout.max_completion_tokens,
        prompt=prompt,
    )
    # A process, or a team, counts its own micro-batches, the rule those of all: several never have a batch in one.
    everyones = batch.micro_batches * layout.teams
    first = scores_first(config.gating, updates=updates_a_step(config), micro_batches=everyones)
    phases = training_phases(model, setting, batch, generation, scores_first=first)
    if config.engine.name == "vllm":  # completions are drawn on the servers' devices (planning/servers.py)
        del phases["rollout"]
    if setting.device == "cpu":
        phases = _with_kept_states(phases, kept_states(config, model, setting, layout))
    if gates_noise(config.gating):  # once, before the first update
        phases["noise_floor"] = noise_phase(model, setting, _measured_for_noise(config, batch))
    if config.benchmark.name is not None and config.engine.name != "vllm":
        phases["evaluation"] = _evaluation_in_training(config, model, setting, benchmark)
    return phases


def phases_of_evaluation(
    config: EvalConfig, model: Architecture, setting: Setting, prompt: int, samples: int | None
) -> dict[str, Memory]:
    """`samples`: of all problems together; None if nobody says how many problems there are."""
    rows = generated_together(config, samples)
    generation = Generation(rows, prompt + config.benchmark.max_tokens, prompt)
    return {"rollout": _generation_alone(model, setting, generation)}


def phases_of_rollout(
    config: RolloutConfig, model: Architecture, setting: Setting, prompt: int, samples: int
) -> dict[str, Memory]:
    settings = config.rollout
    width = prompt + settings.max_completion_tokens
    rows = max(1, min(config.tokens_per_microbatch // width, samples))
    batch = Batch(rows, width, settings.max_completion_tokens)
    generation = Generation(generated_together(config, samples), width, prompt)
    drawn = {} if config.engine.name == "vllm" else {"rollout": _generation_alone(model, setting, generation)}
    phases = {
        **drawn,
        "score": replace(standing(model, setting), optimizer=0, **scoring_pass(model, setting, batch)),
    }
    if setting.reference != "none":
        phases["noise_floor"] = replace(noise_phase(model, setting, batch), optimizer=0)
    return phases


def _measured_for_noise(config: TrainConfig, batch: Batch) -> Batch:
    """Each process measures by itself. Of sequences that a team shares it takes no more than the budget allows."""
    tokens = config.optim.tokens_per_microbatch
    width = batch.width if batch.team == 1 else min(batch.width, tokens)
    rows = min(max(1, tokens // width), rollouts_a_step(config))
    return replace(batch, rows=rows, width=width, counted=min(batch.counted, width), team=1)


def generated_together(config: Any, samples: int | None) -> int:
    """Completions of a generation unit: no more than there are to draw."""
    unit: int = config.engine.batch_size
    return min(unit, samples or unit)


def kept_states(config: TrainConfig, model: Architecture, setting: Setting, layout: Layout) -> int:
    """Bytes of the reference's hidden states, in CPU memory for a step.

    If each update scores the policy again, the reference's states are kept: it does not move within a step.
    """
    if setting.reference == "none" or not scores_each_update(config.gating, updates=updates_a_step(config)):
        return 0
    tokens = per_process(rollouts_a_step(config), layout) * config.rollout.max_completion_tokens
    return tokens * model.hidden_size * setting.compute_bytes


def with_other_reference(phases: dict[str, Memory], model: Architecture, reference: Architecture) -> dict[str, Memory]:
    """The phases with a reference of another size than the policy's."""
    share = reference.parameters / model.parameters
    return {name: replace(phase, reference=round(phase.reference * share)) for name, phase in phases.items()}


def problems_of(benchmark: BenchmarkConfig, data: Data) -> int | None:
    """How many are evaluated; None if neither the data nor the option says."""
    known = data.rows or benchmark.rows
    return min(known, benchmark.limit or known) if known else benchmark.limit


def _with_kept_states(phases: dict[str, Memory], kept: int) -> dict[str, Memory]:
    return {
        name: phase if name == "rollout" else replace(phase, scoring=phase.scoring + kept)
        for name, phase in phases.items()
    }


def _generation_alone(model: Architecture, setting: Setting, generation: Generation) -> Memory:
    return replace(standing(model, setting), optimizer=0, **generating(model, setting, generation))


def _evaluation_in_training(config: TrainConfig, model: Architecture, setting: Setting, data: Data) -> Memory:
    """Sampling of the benchmark's completions, which may be longer than those that are trained on."""
    benchmark, settings = config.benchmark, config.eval
    problems = problems_of(replace(benchmark, limit=settings.limit or benchmark.limit), data)
    samples = problems * (settings.k or benchmark.k) if problems else None
    prompt = prompt_tokens(benchmark.max_tokens, model, data)
    rows = generated_together(config, samples)
    return sampling_phase(model, setting, Generation(rows, prompt + benchmark.max_tokens, prompt))
