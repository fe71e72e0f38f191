"""What generates completions. Commands and the trainer get an engine here, and do not know which one it is.

To add an engine: a file beside this one with a class that keeps the promises of `types.Engine`, a branch of
`make_engine`, a file in conf/engine/. tests/engines/test_conformance.py holds it to these promises.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.engines.vllm.served import Served
from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.types import Engine, Prompt, Rollout, Sampling, Unanswered

if TYPE_CHECKING:  # an evaluation by a server needs no torch, and must not pay for its import
    from dgpo_cli.crew import Crew
    from dgpo_cli.models.policy import Policy

__all__ = ["ENGINES", "HOLD_THE_MODEL", "Served", "Trial", "completed", "make_engine"]

ENGINES = ("transformers", "vllm", "openai")
HOLD_THE_MODEL = frozenset({"openai"})  # servers that somebody else runs: nothing is loaded here


@dataclass(frozen=True)
class Trial:
    """What a server is tried with before anything relies on it."""

    prompts: Sequence[Prompt]  # the first, and others if the fault may be that prompt's
    sampling: Sampling
    chat: bool  # the server applies its chat template to turns; else it gets text
    note: Callable[[str], None]  # gets what the user should know


def make_engine(
    settings: EngineConfig,
    *,
    policy: Policy | None = None,
    crew: Crew | None = None,
    trial: Trial | None = None,
    served: Served | None = None,
) -> Engine:
    """The engine of a configuration. Whoever makes it closes it.

    policy: whose weights it draws with; None for an engine that holds the model itself, which needs a `trial`.
    crew: the processes of a run that draw together; None: this one alone.
    served: what servers of vLLM hold.

    Raises:
        ConfigError: there is no such engine, or the environment holds no usable key for it.
        RunError: a server that is not what the configuration says.
    """
    if settings.name == "transformers" and policy is not None:
        return _in_process(settings, policy, crew)
    if settings.name == "vllm" and policy is not None and served is not None:
        from dgpo_cli.engines.vllm.connect import connect

        return connect(settings, policy, served, crew)
    if settings.name == "openai" and trial is not None:
        return _on_a_server(settings, trial)
    raise ConfigError(f"engine.name: expected {' | '.join(ENGINES)}, got {settings.name}")


def completed(drawn: Sequence[Rollout | Unanswered]) -> list[Rollout]:
    """The rollouts of an engine, for those who can do nothing without one of them.

    Raises:
        RunError: a request was left unanswered.
    """
    rollouts = []
    for one in drawn:
        if isinstance(one, Unanswered):
            raise RunError(one.message, one.hint)
        rollouts.append(one)
    return rollouts


def _in_process(settings: EngineConfig, policy: Policy, crew: Crew | None) -> Engine:
    from dgpo_cli.engines.shared_engine import SharedEngine
    from dgpo_cli.engines.transformers_engine import TransformersEngine

    engine = TransformersEngine(policy.model, stop_ids=policy.stop_ids, batch_size=settings.batch_size)
    return engine if crew is None or crew.processes.alone else SharedEngine(engine, crew)


def _on_a_server(settings: EngineConfig, trial: Trial) -> Engine:
    from dgpo_cli.engines.http import HttpClient
    from dgpo_cli.engines.openai_engine import connect

    first, *others = trial.prompts
    client = HttpClient(
        str(settings.url),
        api_key=_api_key(settings.api_key_env),
        retries=settings.retries,
        timeout_seconds=settings.timeout_seconds,
    )
    return connect(
        client,
        model=settings.model,
        chat=trial.chat,
        concurrency=settings.concurrency,
        prompt=first,
        other_prompts=others[-1:],  # the first may be the one that is too long
        sampling=trial.sampling,
        note=trial.note,
        max_tokens_key=settings.max_tokens_key.value,
    )


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"engine.api_key_env: the environment variable {variable} is not set", f"export {variable}=")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"engine.api_key_env: {variable} holds characters that no key has", "write it again")
    return key
