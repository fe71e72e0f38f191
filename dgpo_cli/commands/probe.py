"""`dgpo train probe=true`: one full-length update on made-up rollouts, and its peak memory beside the plan's.

No run is made and no folder written.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.plan import plan_of
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.model_groups import ModelConfig, ReferenceConfig
from dgpo_cli.models.placement import Placement, prepare_device
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.models.reference import load_reference
from dgpo_cli.planning.plan import probed_batch
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.processes import Processes
from dgpo_cli.progress import measured
from dgpo_cli.reporting.plan_view import probe_tables
from dgpo_cli.reporting.tables import show
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.probe import Measured, PeakMemory, probed_settings, run_probe, warm_up
from dgpo_cli.training.update import Updater

MEASURED_PHASES = ("score", "forward", "backward", "accumulation", "optimizer")


def probe(config: TrainConfig, processes: Processes) -> None:
    """Predicted beside measured peak on stdout, by one process of the run; of several, the most that any of them took.

    Raises:
        DgpoError: the model cannot be loaded, or this system does not count memory.
    """
    plan = plan_of(config)
    measured = measure(config, plan, processes)
    if processes.main:
        record = probe_record(plan, measured)
        show(probe_tables(plan, record), record)


def measure(config: TrainConfig, plan: Plan, processes: Processes) -> Measured:
    """Load the models that a run loads, and update once at full length."""
    placement = prepare_device(config.strategy, config.model, processes)
    tiny = ModelConfig(name="tiny", path="bundled:tiny", lora=config.model.lora)
    small = replace(config, model=tiny, reference=ReferenceConfig())
    each = replace(placement.strategy, sequence_parallel=1)  # as few heads as it has could not be shared out
    warm_up(_updater(small, replace(placement, strategy=each, weights=tiny.dtype)), lr=config.optim.lr)
    memory = PeakMemory(placement.device)
    updater = _updater(config, placement)
    measured = run_probe(updater, memory, probed_batch(config, plan), lr=config.optim.lr)
    return replace(measured, peak_bytes=max(processes.gathered(measured.peak_bytes)))


def _updater(config: TrainConfig, placement: Placement) -> Updater:
    with measured():
        policy = load_trainee(config.model, placement, None, seed=config.seed).model
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    reference = None
    if algorithm.needs_reference:
        reference = load_reference(config.reference, config.model, policy, placement)
    settings = probed_settings(config.optim)
    return Updater(
        policy,
        reference,
        algorithm,
        Optimizer(policy.model, settings, placement.processes),
        settings,
        temperature=config.rollout.temperature,
        processes=placement.processes,
    )


def probe_record(plan: Plan, measured: Measured) -> dict[str, Any]:
    """Predicted and measured peak of the phases that the probe runs, in bytes."""
    # No server is started here, so none sleeps on this GPU.
    phases = {name: replace(phase, engine=0) for name, phase in plan.phases.items() if name in MEASURED_PHASES}
    name = max(phases, key=lambda phase: phases[phase].total)
    predicted = phases[name].total
    return {
        "model": plan.model["name"],
        "parameters": plan.model["parameters"],
        "strategy": asdict(plan.layout),
        "phase": name,
        "predicted": asdict(phases[name]),
        "predicted_bytes": predicted,
        "measured_bytes": measured.peak_bytes,
        "predicted_over_measured": round(predicted / measured.peak_bytes, 4),
        "method": measured.method,
        "tokens": measured.tokens,
        "seconds": round(measured.seconds, 2),
        "tokens_per_second": round(measured.tokens / measured.seconds, 1),
    }
