"""Experiment files: the YAML files among the words of a command, as in `dgpo train my.yaml optim.lr=2e-6`.

A file says the same as a command line, so it becomes one: `optim: {lr: 1e-6}` is `optim.lr=1e-6`, `algo: dapo` is
`algo=dapo`, and a `defaults:` list names options as a recipe's does. What is typed wins over what a file says. A
configuration that is whole, such as a run's config.yaml, is no command line: it stands in place of conf/, and only
what is typed goes on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgpo_cli.command_lines import command as command_line
from dgpo_cli.command_lines import in_quotes, is_plain, shell_word
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.errors import ConfigError, UsageError

ENDINGS = (".yaml", ".yml")
SWEEPS = "hydra.sweeper.params"  # values for -m, as Hydra has them: {seed: "0,1"}


@dataclass
class Words:
    """The words after a command, the files among them read."""

    overrides: list[str]
    origins: dict[str, str] = field(default_factory=dict)  # an override that a file gave -> that file
    base: Path | None = None  # a whole configuration, which the overrides change


def read_files(command: str, texts: list[str], *, multirun: bool = False) -> Words:
    """The overrides of a command line, those of its files before the typed ones.

    Raises:
        ConfigError: a file that is no YAML, or not of this command.
        UsageError: a file that is not there, or two whole configurations.
    """
    files = [text for text in texts if _is_file(text)]
    typed = [text for text in texts if text not in files]
    words = Words([])
    for text in files:
        content = _content(Path(text))
        if _is_whole(command, content):
            if words.base is not None:
                raise UsageError(f"two whole configurations: {words.base} and {text}", "one of them, and KEY=VALUE")
            words.base = Path(text).absolute()
            continue
        _refuse_another_commands(command, text, content)
        for override in _flat(command, content, "", multirun):
            words.overrides = [kept for kept in words.overrides if name_of(kept) != name_of(override)] + [override]
            words.origins[override] = text
    names = {name_of(text) for text in typed}
    if words.base is not None and "resume" in names:
        raise UsageError("resume= has a configuration of its own", f"leave out {words.base.name}")
    words.overrides = [text for text in words.overrides if name_of(text) not in names] + typed
    return words


def whole(command: str, file: Path) -> dict[str, Any]:
    """The content of a whole configuration."""
    content = _content(file)
    return content if _is_whole(command, content) else {}


def _is_file(text: str) -> bool:
    return "=" not in text and (text.lower().endswith(ENDINGS) or Path(text).is_file())


def name_of(override: str) -> str:
    """The key or group of an override, `recipe` under the name of its folder."""
    name = override.partition("=")[0].lstrip("+~").partition("@")[0]
    return catalogue.RECIPES if name == "recipe" else name


def _content(file: Path) -> dict[str, Any]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not file.exists():
        raise UsageError(f"{file}: there is no such file", "an experiment file: dgpo help recipe prints one to copy")
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(f"{file}: expected KEY=VALUE or a .yaml file", f"data is given as data.path={file}")
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(
            f"{file}{line}: not YAML: {error.problem}", "dgpo help recipe prints a file to copy"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected keys with values", "dgpo help recipe prints a file to copy")
    return {str(name): value for name, value in content.items()}


def _is_whole(command: str, content: dict[str, Any]) -> bool:
    """Whether each group has its section with the name of its option, as in config.yaml and by `--cfg job`."""
    groups = [name for name in catalogue.groups(command) if name != catalogue.RECIPES]
    unknown = content.keys() - catalogue.keys(command).keys()
    if any(name in catalogue.keys(other) for other in COMMANDS for name in unknown):
        return False  # another command's
    return bool(groups) and all(isinstance(content.get(name), dict) and "name" in content[name] for name in groups)


def _refuse_another_commands(command: str, file: str, content: dict[str, Any]) -> None:
    """A run's config.yaml given to a command that does not train."""
    other = next((name for name in COMMANDS if name != command and _is_whole(name, content)), None)
    if other is not None:
        run = Path(file).parent
        hint = f"{command_line(other)} {shell_word(file)}"
        if other == "train":
            hint = command_line(command, runs=run) if command == "compare" else command_line(command, model__path=run)
        raise ConfigError(f"{file}: this is the configuration of dgpo {other}", hint)


def _flat(command: str, content: dict[str, Any], prefix: str, multirun: bool) -> Iterator[str]:
    groups = catalogue.groups(command)
    if not prefix and "defaults" in content:
        yield from _defaults(content["defaults"])
    for name, value in content.items():
        path = prefix + str(name)
        if path == "defaults":
            continue
        if path == SWEEPS and isinstance(value, dict):
            yield from (f"{key}={text}" for key, text in value.items() if multirun)
        elif isinstance(value, dict) and (
            path in groups or path not in catalogue.keys(command) or _section(command, path)
        ):
            option = value.get("name")
            if path in groups and option in catalogue.options(path):
                yield f"{path}={option}"
                value = {key: inner for key, inner in value.items() if key != "name"}
            yield from _flat(command, value, f"{path}.", multirun)
        else:
            yield f"{path}={_text(value)}"


def _section(command: str, path: str) -> bool:
    return catalogue.keys(command)[path].is_section


def _defaults(entries: Any) -> Iterator[str]:
    """Options that a defaults list names: `- override /algo: dapo`, `- algo: dapo`."""
    for entry in entries if isinstance(entries, list) else [entries]:
        if entry == "_self_":
            continue
        if not isinstance(entry, dict):
            raise ConfigError(f"defaults: expected '- GROUP: OPTION', got '- {catalogue.show(entry)}'")
        for group, option in entry.items():
            yield f"{str(group).split()[-1].lstrip('/')}={_text(option)}"


def _text(value: Any) -> str:
    """A value in Hydra's grammar; interpolations are left to OmegaConf."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, str):
        return value if is_plain(value) else in_quotes(value)
    return catalogue.show(value)
