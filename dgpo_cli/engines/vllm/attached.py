"""Servers of vLLM that somebody else runs, at `engine.urls`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.engines.vllm.facts import refuse_other_settings, server_facts
from dgpo_cli.engines.vllm.launching import WORKER
from dgpo_cli.engines.vllm.served import Served, served_dtype
from dgpo_cli.errors import RunError
from dgpo_cli.models.model_paths import resolve_path


class AttachedServers:
    """`Hosts` that are used as they are."""

    restartable = False

    def __init__(self, settings: EngineConfig, served: Served) -> None:
        self.settings = settings
        self.served = served
        self.urls = [url.rstrip("/") for url in settings.urls]

    def start(self, longest: int) -> Mapping[str, Any]:
        """What they say of themselves. Raises RunError: one is not what is needed."""
        timeout, keep = self.settings.timeout_seconds, not self.served.trained
        told = server_facts(self.urls, longest, timeout_seconds=timeout, keep_weights=keep)
        wanted = self._wanted()
        for url in self.urls:
            refuse_other_settings(url, wanted, timeout_seconds=timeout)
        return {**told, "dtype": served_dtype(self.settings, self.served.computes_in)}

    def _wanted(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """What a server's own configuration has to say: each setting with the values that will do."""
        wanted: dict[tuple[str, str], tuple[str, ...]] = {
            ("model_config", "dtype"): (f"torch.{served_dtype(self.settings, self.served.computes_in)}",),
            ("model_config", "logprobs_mode"): ("processed_logprobs",),
            ("model_config", "generation_config"): ("vllm",),
        }
        if self.served.trained:  # its weights are replaced, whose names and shapes are checked then
            return wanted | {("parallel_config", "worker_extension_cls"): (WORKER,)}
        path = resolve_path(str(self.served.model.path))
        return wanted | {("model_config", "model"): (path, str(Path(path).resolve()))}

    def restart(self, dead: Sequence[int]) -> None:
        """Raises RunError: they are not ours."""
        raise RunError(
            f"the servers at {', '.join(self.urls[one] for one in dead)} are gone, and are not dgpo's to start",
            "start them anew; the same command, or resume=, continues then",
        )

    def last_words(self, numbers: Sequence[int]) -> str:
        """Their logs are somewhere else."""
        return ""

    def close(self) -> None:
        """They run on."""
