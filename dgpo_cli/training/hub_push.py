"""A trained model on its way to the Hugging Face Hub: the repository is made sure of first, the files go last.

huggingface_hub does all of it, with its own token (`hf auth login`, or HF_TOKEN) and its own address (HF_ENDPOINT).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.hub_access import hub_address
from dgpo_cli.progress import measured

CARD = "README.md"


def require_repository(name: str) -> None:
    """Make the repository if there is none, private: no run shall end with what it cannot upload.

    Raises:
        ConfigError: no token, no right to write, no answer.
    """
    try:
        with measured():
            _api().create_repo(name, private=True, exist_ok=True)
    except Exception as error:  # of many kinds: of the hub, of HTTP, OSError
        raise ConfigError(
            f"push_to_hub={name}: the repository cannot be written: {_reason(error)}",
            "hf auth login, or HF_TOKEN, with a token that may write; or leave push_to_hub out",
        ) from error


def push(model: Path, card: str, name: str, *, message: str, again: str) -> str:
    """Upload the files of a model's folder and the card in one commit; the commit's address.

    again: how to try once more, for the hint.

    Raises:
        RunError: it failed. The folder is as it was.
    """
    from huggingface_hub import CommitOperationAdd

    files = sorted(path for path in model.rglob("*") if path.is_file() and path.name != CARD)
    added = [CommitOperationAdd(path.relative_to(model).as_posix(), path) for path in files]
    added.append(CommitOperationAdd(CARD, card.encode()))
    try:
        with measured():
            return str(_api().create_commit(name, added, commit_message=message).commit_url)
    except Exception as error:  # as above
        raise RunError(
            f"push_to_hub={name}: the run is done and saved, and its upload failed: {_reason(error)}",
            again,
        ) from error


def _api() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub_address())


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
