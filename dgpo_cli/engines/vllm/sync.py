"""How new weights get to vLLM servers (`engine.sync`): files in a folder that both see, or a process group."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from dgpo_cli.engines.vllm.files_sync import FilesSync
from dgpo_cli.engines.vllm.group_sync import GroupSync
from dgpo_cli.engines.vllm.updates import Pushed, Refusal, WeightSync
from dgpo_cli.processes import SOLO, Processes

__all__ = ["Pushed", "Refusal", "SyncSettings", "WeightSync", "make_sync"]


class SyncSettings(Protocol):
    """Of `engine=`, what weights on their way depend on."""

    @property
    def sync(self) -> Any: ...

    @property
    def sync_folder(self) -> str | None: ...

    @property
    def timeout_seconds(self) -> float: ...


def make_sync(settings: SyncSettings, processes: Processes = SOLO) -> WeightSync:
    """The way of `engine.sync`. Whoever makes it closes it."""
    if str(getattr(settings.sync, "value", settings.sync)) == "group":
        return GroupSync(processes=processes, timeout_seconds=settings.timeout_seconds)
    folder = None if settings.sync_folder is None else Path(settings.sync_folder)
    return FilesSync(folder, processes=processes, timeout_seconds=settings.timeout_seconds)
