"""Which gatings are meant: `gating=`, the options that stand beside it by name, and that of rollouts already stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.gating_needs import shapes_credit
from dgpo_cli.config.groups import Control, GatingConfig
from dgpo_cli.errors import ConfigError

BESIDE = ("paper", "calibrated")  # if `gatings` names none
CHOOSES = ("gating", "algo", catalogue.RECIPES)  # options that bring a gating


def gatings_by_label(
    chosen: GatingConfig, beside: Iterable[str], config_dirs: Iterable[Path] = ()
) -> dict[str, GatingConfig]:
    """`chosen` first, then the options `beside`, each once. A changed option is named with its changes.

    Raises:
        ConfigError: an option that cannot be read on its own.
    """
    found = {label(chosen, config_dirs): chosen}
    for name in beside:
        found.setdefault(name, gating_option(name, config_dirs))
    return found


def with_controls(gatings: Mapping[str, GatingConfig], config_dirs: Iterable[Path] = ()) -> dict[str, GatingConfig]:
    """The gatings, and of the first one that moves credit its weights permuted and inverted: what it has to beat."""
    moving = (one for one in gatings.values() if shapes_credit(one) and one.control is Control.none)
    base, dirs = next(moving, None), list(config_dirs)
    if base is None:
        return dict(gatings)
    controls = [dataclasses.replace(base, control=control) for control in (Control.permute, Control.invert)]
    found = dict(gatings)
    for control in controls:
        found.setdefault(label(control, dirs), control)
    return found


def label(gating: GatingConfig, config_dirs: Iterable[Path] = ()) -> str:
    """`paper`, or `paper temperature=0.05` if it is not quite that option."""
    if gating.name not in catalogue.option_files("gating", config_dirs):
        return gating.name
    usual = gating_option(gating.name, config_dirs)
    changed = [
        f"{field.name}={catalogue.show(getattr(gating, field.name))}"
        for field in dataclasses.fields(gating)
        if getattr(gating, field.name) != getattr(usual, field.name)
    ]
    return " ".join([gating.name, *changed])


def gating_option(name: str, config_dirs: Iterable[Path] = ()) -> GatingConfig:
    """The values of conf/gating/NAME.yaml, or of a folder of --config-dir."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    file = catalogue.option_files("gating", config_dirs).get(name)
    if file is None:
        raise ConfigError(f"gatings: there is no gating '{name}'", " | ".join(catalogue.options("gating")))
    try:
        values = OmegaConf.load(file)
        if not isinstance(values, DictConfig) or "defaults" in values:
            raise ConfigError(f"{file}: an option with a defaults list cannot stand beside another", f"gating={name}")
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(GatingConfig), values))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: {str(error).splitlines()[0]}", f"dgpo rollout gating={name} --cfg job") from error
    assert isinstance(result, GatingConfig)
    return result


def gating_of_file(rollouts: Path) -> tuple[GatingConfig, Path] | None:
    """The gating that a file of rollouts was scored by, and the config.yaml that says so; None if none does.

    That is the config.yaml beside it (of `dgpo rollout`), or that of the run in whose rollouts/ the file lies; a run's
    folder has its own.
    """
    folders = [rollouts.parent, rollouts.parent.parent] if rollouts.parent.name == "rollouts" else [rollouts.parent]
    folders = [rollouts] if rollouts.is_dir() else folders
    for folder in folders:
        gating = _gating_in(folder / "config.yaml")
        if gating is not None:
            return gating, folder / "config.yaml"
    return None


def _gating_in(file: Path) -> GatingConfig | None:
    """None for a file that is not there, cannot be read or is not ours: rollouts can be shown all the same."""
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        stored = OmegaConf.load(file)
        node = stored.get("gating") if isinstance(stored, DictConfig) else None
        if node is None:
            return None
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(GatingConfig), node))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        return None
    return result if isinstance(result, GatingConfig) else None


def typed_keys() -> list[str]:
    """The keys and groups that were typed, within a job that Hydra runs."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from dgpo_cli.config.overrides import parse

    if not HydraConfig.initialized():
        return []
    task = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(task, list)
    return [parse(str(text)).key_or_group for text in task]


def hydra_config_dirs() -> list[Path]:
    """The folders of --config-dir, within a job that Hydra runs."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not HydraConfig.initialized():
        return []
    runtime = OmegaConf.to_container(HydraConfig.get().runtime, resolve=False)
    assert isinstance(runtime, dict)
    return [Path(source["path"]) for source in runtime["config_sources"] if source["provider"] == "command-line"]
