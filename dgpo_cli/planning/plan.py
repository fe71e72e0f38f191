"""The plan of a command: batch arithmetic, memory a process, disk, and what is likely to go wrong.

It reads a typed configuration and an architecture. What the machine has and what the data holds is handed in, so that
nothing here touches files, hardware or network.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.batches import Data, micro_batch, prompt_tokens, training_batch
from dgpo_cli.planning.disk import planned_disk
from dgpo_cli.planning.fitting import judged
from dgpo_cli.planning.hours import estimated_hours
from dgpo_cli.planning.layout import Machine, layout_of, setting_of
from dgpo_cli.planning.memory import Batch, Setting, host_bytes, standing, trained_parameters
from dgpo_cli.planning.phases import (
    generated_together,
    kept_states,
    phases_of_evaluation,
    phases_of_rollout,
    phases_of_training,
    problems_of,
    with_other_reference,
)
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.planning.remarks import batch_warnings, context_warnings, disk_warnings, team_warnings, wider_team
from dgpo_cli.planning.servers import (
    are_colocated,
    colocated_facts,
    planned_servers,
    server_warnings,
    with_colocated,
)
from dgpo_cli.planning.traffic_plan import planned_traffic


def plan_training(
    config: TrainConfig,
    model: Architecture,
    machine: Machine,
    data: Data,
    reference: Architecture | None = None,
    benchmark: Data = Data(),  # noqa: B008
    *,
    notes: tuple[str, ...] = (),
) -> Plan:
    """`reference`: the architecture of another model than the policy's, if reference.path names one.

    `benchmark`: what is known of the problems that are evaluated in training.
    """
    layout = layout_of(config, machine)
    setting = setting_of(config, layout, trains=True)
    completion = config.rollout.max_completion_tokens
    prompt = prompt_tokens(completion, model, data)
    batch = micro_batch(config, layout, prompt)
    phases = phases_of_training(config, model, setting, layout, batch, prompt, benchmark)
    fraction = config.engine.gpu_memory_fraction
    colocated = are_colocated(config, layout)
    if colocated:
        phases = with_colocated(phases, standing(model, setting), fraction, machine)
    if reference is not None:
        phases = with_other_reference(phases, model, reference)
    disk = planned_disk(config, model, setting)
    servers = planned_servers(config, model, setting, layout, machine, prompt + completion)
    in_turns = {"colocated": colocated_facts(phases, fraction, machine)} if colocated else {}
    kept = 0 if setting.device == "cpu" else kept_states(config, model, setting, layout)
    made = Plan(
        command="train",
        model=_model_facts(config, model, setting),
        layout=layout,
        precision=_precision(setting, trains=True),
        batch=training_batch(config, layout, batch, prompt, data),
        phases=phases,
        host_bytes=host_bytes(model, setting) + kept,
        loading_bytes=setting.weight_bytes * model.parameters if setting.sharded else 0,
        servers={**servers.as_record(), **in_turns} if servers else {},
        time=estimated_hours(config, model, layout, prompt),
        traffic=planned_traffic(config, model, setting, layout, batch, prompt),
        disk=disk,
    )
    models = [model] if reference is None else [model, reference]
    warnings = (
        *notes,
        *layout.assumed,
        *context_warnings(model, prompt, completion, "rollout.max_completion_tokens"),
        *team_warnings(models, layout),
        *batch_warnings(config, layout, batch),
        *server_warnings(config, servers, layout, machine, trains=True),
        *disk_warnings(disk, machine),
    )
    return judged(made, machine, warnings, wider_team=wider_team(models, layout))


def plan_evaluation(
    config: EvalConfig, model: Architecture, machine: Machine, data: Data, *, notes: tuple[str, ...] = ()
) -> Plan:
    layout = layout_of(config, machine)
    setting = setting_of(config, layout, trains=False)
    benchmark = config.benchmark
    prompt = prompt_tokens(benchmark.max_tokens, model, data)
    problems = problems_of(benchmark, data)
    samples = problems * benchmark.k if problems else None
    counts = {
        "benchmark": benchmark.name,
        "problems": problems,
        "samples_per_problem": benchmark.k,
        "samples": samples,
        "generated_together": generated_together(config, samples),
        "prompt_tokens": prompt,
        "max_completion_tokens": benchmark.max_tokens,
        "tokens_max": samples * benchmark.max_tokens if samples else None,
    }
    servers = planned_servers(config, model, setting, layout, machine, prompt + benchmark.max_tokens)
    here = phases_of_evaluation(config, model, setting, prompt, samples)
    made = Plan(
        command="eval",
        model=_model_facts(config, model, setting),
        layout=layout,
        precision=_precision(setting, trains=False),
        batch={"steps": None, "batch": counts},
        phases={"server": servers.as_phase()} if servers else here,
        servers=servers.as_record() if servers else {},
    )
    context = context_warnings(model, prompt, benchmark.max_tokens, "benchmark.max_tokens")
    of_servers = server_warnings(config, servers, layout, machine, trains=False)
    return judged(made, machine, (*notes, *layout.assumed, *context, *of_servers))


def plan_rollout(
    config: RolloutConfig,
    model: Architecture,
    machine: Machine,
    data: Data,
    reference: Architecture | None = None,
    *,
    notes: tuple[str, ...] = (),
) -> Plan:
    """`reference`: as in `plan_training`."""
    layout = layout_of(config, machine)
    setting = setting_of(config, layout, trains=False)
    group_size, completion = config.rollout.group_size, config.rollout.max_completion_tokens
    prompt = prompt_tokens(completion, model, data)
    prompts = 1 if config.prompt is not None else min(config.limit, data.rows or config.limit)
    samples = prompts * group_size
    phases = phases_of_rollout(config, model, setting, prompt, samples)
    if reference is not None:
        phases = with_other_reference(phases, model, reference)
    counts = {
        "prompts": prompts,
        "group_size": group_size,
        "rollouts": samples,
        "prompt_tokens": prompt,
        "max_completion_tokens": completion,
        "tokens_max": samples * completion,
    }
    servers = planned_servers(config, model, setting, layout, machine, prompt + completion)
    made = Plan(
        command="rollout",
        model=_model_facts(config, model, setting),
        layout=layout,
        precision=_precision(setting, trains=False),
        batch={"steps": None, "batch": counts},
        phases=phases,
        servers=servers.as_record() if servers else {},
    )
    context = context_warnings(model, prompt, completion, "rollout.max_completion_tokens")
    of_servers = server_warnings(config, servers, layout, machine, trains=True)
    return judged(made, machine, (*notes, *layout.assumed, *context, *of_servers))


def probed_batch(config: TrainConfig, made: Plan) -> Batch:
    """The micro-batch that the plan's update was laid out for."""
    return micro_batch(config, made.layout, made.batch["batch"]["prompt_tokens"])


def _model_facts(config: Any, model: Architecture, setting: Setting) -> dict[str, Any]:
    return {
        "name": config.model.name,
        "path": config.model.path,
        "parameters": model.parameters,
        "trained_parameters": trained_parameters(model, setting) if isinstance(config, TrainConfig) else 0,
        "architecture": asdict(model),
    }


def _precision(setting: Setting, *, trains: bool) -> dict[str, Any]:
    names = {2: "bfloat16", 4: "float32"}
    weights = names[setting.weight_bytes]
    if setting.quantization != "none":
        weights = f"{setting.quantization} (embedding, norms and head {weights})"
    facts: dict[str, Any] = {"weights": weights, "compute": names[setting.compute_bytes]}
    if trains:
        beside = 8 if setting.states == "float32" else 2
        facts |= {"gradients": "float32", "moments": setting.states, "bytes_per_trained_parameter": 8 + beside}
    return facts
