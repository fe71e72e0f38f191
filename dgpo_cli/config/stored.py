"""A typed configuration as a file, and back: a run's config.yaml.

OmegaConf is imported inside the functions: importing this module stays cheap.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgpo_cli.command_lines import escaped
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.errors import ConfigError
from dgpo_cli.files import write_atomically

if TYPE_CHECKING:
    from omegaconf import DictConfig


def save(config: Any, file: Path) -> None:
    """Write a typed configuration as the run's config.yaml: whole or not at all, for a run without it cannot go on."""
    from omegaconf import OmegaConf

    write_atomically(file, OmegaConf.to_yaml(node_of(config)))


def node_of(config: Any) -> DictConfig:
    """A typed configuration as OmegaConf's: text that looks like an interpolation, such as a path, stays text."""
    from omegaconf import OmegaConf

    node = OmegaConf.structured(_escaped(config))
    assert OmegaConf.is_dict(node)
    return node  # type: ignore[no-any-return]


def container_of(config: Any) -> dict[str, Any]:
    """As `node_of`, as plain values that can be written to a file and merged into the schema again."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(node_of(config), resolve=False, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _escaped(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return replace(value, **{field.name: _escaped(getattr(value, field.name)) for field in fields})
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escaped(value) if isinstance(value, str) else value


def load(command: str, file: Path) -> Any:
    """The typed configuration that `save` wrote; keys that it lacks take their defaults."""
    from omegaconf import OmegaConf

    return OmegaConf.to_object(load_node(command, file))


def load_node(command: str, file: Path) -> DictConfig:
    """As `load`, before it becomes the dataclass."""
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        stored = OmegaConf.load(file)
        merged = OmegaConf.merge(OmegaConf.structured(COMMANDS[command]), stored)
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file", "a run's folder holds config.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read: {str(error).splitlines()[0]}", "is this a run's folder?") from error
    except (OmegaConfBaseException, ValueError) as error:
        message = f"{file}: not a configuration of dgpo {command}: {str(error).splitlines()[0]}"
        raise ConfigError(message, "is this a run's folder?") from error
    assert isinstance(merged, DictConfig)
    return merged
