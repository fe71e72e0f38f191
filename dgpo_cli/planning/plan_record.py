"""The record of a plan: what a command would take, as the table and the JSON object say it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dgpo_cli.planning.layout import Layout
from dgpo_cli.planning.memory import PARTS, Memory


@dataclass(frozen=True)
class Plan:
    """All of it; sizes in bytes, `memory` of one process.

    `host_bytes` is CPU memory of a process on a GPU; `loading_bytes` what the main process takes there while it loads
    a model that is then shared out.
    """

    command: str
    model: dict[str, Any]
    layout: Layout
    precision: dict[str, Any]
    batch: dict[str, Any]
    phases: dict[str, Memory]
    host_bytes: int = 0
    loading_bytes: int = 0
    servers: dict[str, Any] = field(default_factory=dict)  # planning/servers.py; empty without servers of dgpo's own
    time: dict[str, Any] = field(default_factory=dict)  # planning/hours.py: an estimate, of training alone
    traffic: dict[str, int] = field(default_factory=dict)  # planning/traffic_plan.py: of training by several processes
    disk: dict[str, int] = field(default_factory=dict)
    fits: dict[str, bool] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def memory(self) -> dict[str, int]:
        """The most of each part in any phase."""
        return {part: max(getattr(phase, part) for phase in self.phases.values()) for part in PARTS}

    def on_a_gpu_of(self, capacity: int) -> dict[str, Memory]:
        """The phases, with the share of a GPU of so many bytes that a colocated server takes while it draws."""
        if not self.servers.get("colocated"):
            return self.phases
        share = int(self.servers["colocated"]["fraction"] * capacity)
        return {**self.phases, "rollout": replace(self.phases["rollout"], engine=share)}

    @property
    def peak_phase(self) -> str:
        return max(self.phases, key=lambda name: self.phases[name].total)

    @property
    def peak_bytes(self) -> int:
        return self.phases[self.peak_phase].total

    def as_record(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "command": self.command,
            "model": self.model,
            "strategy": asdict(self.layout),
            "precision": self.precision,
            **self.batch,
            "memory": self.memory,
            "memory_peak": {"bytes": self.peak_bytes, "phase": self.peak_phase},
            "memory_by_phase": {name: {"total": phase.total, **asdict(phase)} for name, phase in self.phases.items()},
            "host_memory": self.host_bytes,
            "host_memory_loading": self.loading_bytes,
            "servers": self.servers,
            "time_estimate": self.time,
            "traffic": self.traffic,
            "disk": self.disk,
            "fits": self.fits,
            "warnings": list(self.warnings),
        }
