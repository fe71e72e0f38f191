"""What the path of a model stands for: a bundled model, a folder, the folder of an adapter with its base, or a hub id.

It looks at names and at small files alone, without torch, transformers or peft. Weights are read by loading.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from dgpo_cli.bundled import bundled_path
from dgpo_cli.config.lora_checks import holds_adapter
from dgpo_cli.errors import DataError

BUNDLED = "bundled:"
ADAPTER_CONFIG = "adapter_config.json"


def resolve_path(path: str) -> str:
    """`bundled:NAME` to its folder; any other path stays."""
    return str(bundled_path(path.removeprefix(BUNDLED))) if path.startswith(BUNDLED) else path


def adapter_base(path: str) -> str:
    """The name that a new adapter gives to its base: a folder by its whole path, so that any peft here finds it."""
    folder = Path(resolve_path(path))
    return str(folder.resolve()) if folder.is_dir() else path


def named_base(folder: Path) -> tuple[str, str | None]:
    """The base model that an adapter's folder names, and its revision.

    Raises:
        DataError: its configuration names none.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"] or ""), config.get("revision")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / ADAPTER_CONFIG} names no base model",
            "it is written by save_pretrained of peft, or by dgpo train",
        ) from error


def base_path(folder: Path) -> tuple[str, str | None]:
    """Where the base of an adapter's folder is found here, and its revision. Raises as `named_base` does."""
    path, revision = named_base(folder)
    if not Path(path).exists() and Path(path).parts[-3:-1] == ("dgpo_cli", "bundled"):
        path = BUNDLED + Path(path).name  # the bundled model of another installation
    return path, revision


def weights_hash_files(path: str) -> list[Path]:
    """The weight files of a local model folder, for a manifest; none for a hub id. An adapter's: with its base's."""
    folder = Path(resolve_path(path))
    if not folder.is_dir():
        return []
    base = weights_hash_files(base_path(folder)[0]) if holds_adapter(str(folder)) else []
    return sorted(folder.glob("*.safetensors")) + base
