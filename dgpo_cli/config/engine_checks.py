"""Problems of an engine before anything is started: its name, its command, a server's address and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.config.groups import EngineConfig
from dgpo_cli.errors import Problem


def known_engine(config: Any) -> Iterator[Problem]:
    """Problems of `engine.*` for the command that it stands in."""
    engine, known = config.engine, catalogue.options("engine")
    if engine.name not in known:
        close = catalogue.nearest(engine.name, known)
        hint = f"did you mean engine={close}?" if close else " | ".join(known)
        yield Problem(f"engine.name: there is no engine '{engine.name}'", hint)
    elif engine.name == "openai" and not isinstance(config, EvalConfig):
        message = (
            "engine=openai: only dgpo eval takes it; training and rollouts need token ids and weights of their own"
        )
        yield Problem(message, "engine=transformers")
    elif engine.name == "openai" and not config.benchmark.completions:
        yield from _server(engine)


def _server(engine: EngineConfig) -> Iterator[Problem]:
    example = "engine.url=http://127.0.0.1:8000/v1"
    if not engine.url:
        yield Problem("engine.url: engine=openai needs the address of a server", example)
        return
    try:
        url = urlsplit(engine.url)
        _ = url.port  # raises if it is no number
    except ValueError:
        url = urlsplit("")
    if url.username or url.password:  # not shown: it may be a secret
        yield Problem("engine.url: expected an address without credentials", "engine.api_key_env=NAME_OF_A_VARIABLE")
    elif url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        yield Problem(f"engine.url: expected http://HOST:PORT/v1, got '{engine.url}'", example)
    elif url.path.rstrip("/").endswith("/completions"):
        base = engine.url.partition("/chat/completions")[0].partition("/completions")[0]
        yield Problem(f"engine.url: expected the API's base address, got '{engine.url}'", f"engine.url={base}")
    if engine.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", engine.api_key_env):
        message = "engine.api_key_env: expected the name of an environment variable, not the key itself"
        yield Problem(message, "export API_KEY=..., then engine.api_key_env=API_KEY")
