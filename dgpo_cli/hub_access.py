"""Whether the hub answers at all: asked once, within seconds, before a library tries every file again and again.

The standard library alone: it is asked before torch is imported. Proxies are those of the environment.
"""

from __future__ import annotations

import functools
import os
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path

ANSWER_SECONDS = 6.0


def is_on_the_hub(path: str) -> bool:
    """Whether a path is no file or folder here, nor bundled."""
    return not path.startswith("bundled:") and path.count("/") == 1 and not Path(path).expanduser().exists()


def is_cached(path: str) -> bool:
    """Whether the hub's cache holds anything of a model."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    return (cache / f"models--{path.replace('/', '--')}" / "snapshots").is_dir()


@functools.cache
def hub_answers(seconds: float = ANSWER_SECONDS) -> bool:
    """Whether the hub's address answers anything within `seconds`, the look-up of its name included."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    address = hub_address()
    answers: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds):
                answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except OSError as error:  # URLError is one
            answers.append(isinstance(getattr(error, "reason", error), ssl.SSLError))

    thread = threading.Thread(target=ask, name="hub", daemon=True)  # a look-up of a name has no deadline of its own
    thread.start()
    thread.join(seconds)
    return bool(answers) and answers[0]


def hub_address() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")
