"""The plan of a command as tables: what it will do, memory by part and phase, and what to know before it starts."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from dgpo_cli.planning.memory import PARTS
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.planning.remarks import size
from dgpo_cli.reporting.tables import make_table


def plan_tables(plan: Plan) -> list[Table]:
    """The command's arithmetic, a process's memory, and the warnings."""
    place, model = plan.layout, plan.model
    title = (
        f"dgpo {plan.command}: {model['name']}, {model['parameters']:,} parameters, strategy {place.strategy}, "
        f"{place.processes} {'process' if place.processes == 1 else 'processes'} on {place.device}"
        + (f", {place.sequence_parallel} to a sequence" if place.sequence_parallel > 1 else "")
    )
    tables = [
        make_table(("what", "how much"), _arithmetic(plan), title=title),
        make_table(("memory of a process", *plan.phases), _memory(plan)),
    ]
    if plan.warnings:
        tables.append(make_table(("to know",), [(text,) for text in plan.warnings]))
    return tables


def _arithmetic(plan: Plan) -> list[tuple[str, str]]:
    rows = [] if plan.batch["steps"] is None else [("steps", f"{plan.batch['steps']:,}")]
    rows += [(name.replace("_", " "), _shown(value)) for name, value in plan.batch["batch"].items()]
    rows.append(("precision", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in plan.precision.items())))
    disk = plan.disk
    if disk:
        kept, most = disk["checkpoints_kept"], size(disk["most"])
        rows.append(("disk", f"{size(disk['checkpoint'])} a checkpoint, {kept} kept, {most} at most"))
    if plan.host_bytes:
        rows.append(("CPU memory of a process", size(plan.host_bytes)))
    if plan.loading_bytes:
        rows.append(("CPU memory while loading", f"{size(plan.loading_bytes)} in the main process"))
    if plan.time:
        rows.append(("time, an estimate", _time(plan.time)))
    if plan.traffic:
        listed = ", ".join(f"{kind} {size(count)}" for kind, count in plan.traffic.items() if count)
        rows.append(("between processes", f"{listed}: as it arrives in all of them, a step; checkpoint: a save"))
    if plan.servers:
        rows.append(("servers of vLLM", _servers(plan.servers)))
    if plan.servers.get("colocated"):
        rows.append(("their GPU, in turns", _turns(plan)))
    if plan.fits:
        rows.append(("fits", ", ".join(f"{name}: {'yes' if fits else 'no'}" for name, fits in plan.fits.items())))
    return rows


def _time(time: dict[str, Any]) -> str:
    """Hours, and everything that they rest on."""
    step, assumed = time["seconds_per_step"], time["assumed"]
    return (
        f"{time['hours']:,} hours: {step['generation']:,} s of generation and {step['training']:,} s of training a "
        f"step, {time['tokens_per_second']:,} tokens a second. Assumed, not measured: {assumed['peak_flops'] / 1e12:g} "
        f"TFLOP/s a device at {assumed['mfu']:.0%} MFU, {assumed['bytes_per_second'] / 1e9:,.0f} GB/s at "
        f"{assumed['bandwidth_used']:.0%}, completions of full length, no evaluations"
    )


def _servers(servers: dict[str, Any]) -> str:
    """How many, and what one device of one holds."""
    each = "" if servers["devices_each"] == 1 else f" on {servers['devices_each']} devices each"
    cache = "" if servers["cache"] is None else f", {size(servers['cache'])} of cache"
    side = "" if servers["cache"] is None else f" ({servers['sequences_at_once']:,} full sequences at once)"
    return f"{servers['servers']}{each}: {size(servers['weights'])} of weights{cache}{side} a device"


def _turns(plan: Plan) -> str:
    """What both sides hold of a GPU that they share, at the peak of training and of drawing."""
    facts = plan.servers["colocated"]
    asleep, kept = facts["asleep"], facts["kept_by_trainer"]
    name, training = max(
        ((name, phase.total) for name, phase in plan.phases.items() if name != "rollout"), key=lambda item: item[1]
    )
    drawing = ", ".join(
        f"{size(kept + share)} of {gpu} ({size(kept)} of the trainer, {size(share)} of the server; "
        f"engine.gpu_memory_fraction up to {facts['largest_fraction'][gpu]:g} fits)"
        for gpu, share in facts["share"].items()
    )
    return (
        f"training {size(training)} at its peak, {name} ({size(training - asleep)} of the trainer, an allowance of "
        f"{size(asleep)} of the sleeping server); drawing {drawing}"
    )


def _memory(plan: Plan) -> list[list[str]]:
    rows = [
        [part, *(size(getattr(phase, part)) if getattr(phase, part) else "-" for phase in plan.phases.values())]
        for part in PARTS
        if plan.memory[part]
    ]
    totals = [
        f"{size(phase.total)}{' (peak)' if name == plan.peak_phase else ''}" for name, phase in plan.phases.items()
    ]
    return [*rows, ["total", *totals]]


def _shown(value: int | float | str | None) -> str:
    if value is None:
        return "not known"
    return f"{value:,}" if isinstance(value, int | float) else value


def probe_tables(plan: Plan, record: dict[str, Any]) -> list[Table]:
    """Predicted beside measured peak."""
    rows = [(part, size(count), "") for part, count in record["predicted"].items() if count]
    rows.append(("peak", size(record["predicted_bytes"]), size(record["measured_bytes"])))
    title = (
        f"dgpo train probe: {plan.model['name']}, {record['tokens']:,} tokens in {record['seconds']:.1f} s, "
        f"predicted over measured {record['predicted_over_measured']:.2f}"
    )
    return [
        make_table(("memory of a process", "predicted", "measured"), rows, title=title),
        make_table(("measured as",), [(record["method"],)]),
    ]
