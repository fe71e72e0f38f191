"""Compose a command's configuration with Hydra: options of conf/ and recipes/, overrides, and the typed schema behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgpo_cli.config.commands import COMMANDS


def config_roots() -> tuple[Path, Path]:
    """The folder conf/ and the parent of recipes/: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parent.parent
    root = package if (package / "conf").is_dir() else package.parent
    return root / "conf", root


def compose(command: str, overrides: list[str]) -> Any:
    """The command's configuration as its dataclass (see `COMMANDS`)."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    for name, schema in COMMANDS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    if not OmegaConf.has_resolver("job_folder"):
        OmegaConf.register_new_resolver("job_folder", lambda number, name: f"{number}_{name}")
    conf, root = config_roots()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = hydra_compose(command, [*overrides, f"hydra.searchpath=[file://{root}]"])
    return OmegaConf.to_object(config)
