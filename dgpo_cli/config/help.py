"""The texts of `dgpo COMMAND -h` and `dgpo help WORD`. Standard library alone, so that they answer at once."""

from __future__ import annotations

import textwrap
from pathlib import Path

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.help_lists import every_key, example, option_text
from dgpo_cli.config.reward_contract import MORE
from dgpo_cli.config.suggestions import unknown_key_hint
from dgpo_cli.errors import UsageError

USAGE = {
    "train": "dgpo train [FILE.yaml] [GROUP=OPTION] [KEY=VALUE] ...\n       dgpo train resume=FOLDER [KEY=VALUE] ...",
    "eval": "dgpo eval [GROUP=OPTION] [KEY=VALUE] ...",
    "rollout": 'dgpo rollout [prompt="..."] [GROUP=OPTION] [KEY=VALUE] ...\n'
    "       dgpo rollout rollouts=FILE [gating=...] [report=true] [export=FILE]\n"
    "       dgpo rollout grade=FILE reward.path=FILE.py:FUNCTION",
    "compare": "dgpo compare runs=[FOLDER,FOLDER] [KEY=VALUE] ...",
}
SHORT = """\
dgpo help KEY            type, default, meaning and unit of a key, such as dgpo help optim.lr
dgpo help GROUP          its options and keys, such as dgpo help gating
dgpo help GROUP=OPTION   what an option sets, such as dgpo help algo=dapo
dgpo help keys           every key with type and default
dgpo help recipe         an experiment file to copy: dgpo help recipe > my.yaml, then dgpo train my.yaml"""
MOST_USED = {
    "train": [
        *("model.path", "data.path", "reward.path", "steps", "seed", "optim.lr"),
        *("rollout.prompts_per_step", "rollout.group_size", "rollout.max_completion_tokens", "resume"),
    ],
    "eval": [
        *("model.path", "benchmark.path", "benchmark.k", "benchmark.limit", "benchmark.temperature"),
        *("benchmark.top_p", "benchmark.max_tokens", "benchmark.completions", "engine.batch_size", "seed"),
    ],
    "rollout": [
        *("prompt", "limit", "rollouts", "grade", "report", "model.path", "reference.path", "rollout.group_size"),
        *("rollout.temperature", "seed"),
    ],
    "compare": ["runs", "compare.alpha", "seed", "force"],
}


def command_help(verb: str) -> str:
    """The text of `dgpo COMMAND -h`."""
    doc = (COMMANDS[verb].__doc__ or "").partition(": ")[2]
    lines = [f"dgpo {verb}: {doc}", f"usage: {USAGE[verb]}", ""]
    groups = catalogue.groups(verb)
    if groups:
        lines.append("Groups (* is the default)")
    for group in groups:
        label = "recipe" if group == catalogue.RECIPES else group
        chosen = _chosen(group, verb)
        names = [f"{name}*" if name == chosen else name for name in catalogue.options(group)] or ["none yet"]
        lines.append(_hanging(label, " ".join(names), 11))
    lines += ["", "Most used keys"]
    width = max(len(name) for name in MOST_USED[verb]) + 2
    for name in MOST_USED[verb]:
        key = catalogue.keys(verb)[name]
        lines.append(_hanging(name, f"{key.meaning}{_unit(key)} [{_default(key, verb)}]", width))
    lines += [
        "",
        f"dgpo help KEY says more, dgpo help keys lists all {_count(verb)} keys",
        "--cfg job prints the whole configuration and starts nothing",
    ]
    if verb in ("train", "eval"):
        lines.append(f"-m sweeps: dgpo {verb} -m seed=0,1,2")
    lines.append("hydra.run.dir=FOLDER names the run's folder; --config-dir FOLDER adds options of your own")
    return "\n".join(lines)


def _count(verb: str) -> int:
    return sum(not key.is_section for key in catalogue.keys(verb).values())


def _hanging(label: str, text: str, width: int) -> str:
    start = f"  {label.ljust(width)}"
    if len(label) >= width:
        return f"  {label}\n{_hanging('', text, width)}" if text else f"  {label}"
    return textwrap.fill(text, 116, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)


def default_options(verb: str) -> dict[str, str]:
    """The option of each group if none is chosen: the command's own defaults, then what these bring."""
    conf, _ = catalogue.config_roots()
    chosen: dict[str, str] = {}
    waiting = [conf / f"{verb}.yaml"]
    while waiting:
        for group, option in catalogue.defaults_list(waiting.pop(0)):
            file = conf / group / f"{option}.yaml"
            if group not in chosen and file.is_file():
                chosen[group] = option
                waiting.append(file)
    return chosen


def _unit(key: catalogue.Key) -> str:
    return f" ({key.unit})" if key.unit else ""


def _default(key: catalogue.Key, verb: str) -> str:
    """The default as typed, and beside it that of the model option if the model brings one."""
    conf, _ = catalogue.config_roots()
    values = catalogue.flat_yaml(conf / f"{verb}.yaml")
    value = values.get(key.path, catalogue.show(key.default))
    if value.startswith("${"):
        special, general, model = _brought_by_model(value, verb)
        return (
            f"{general}, or what the model brings" if special == general else f"{special} with {model}, else {general}"
        )
    group = key.path.partition(".")[0]
    option = default_options(verb).get(group)
    if option is None or "." not in key.path:
        return value
    brought = catalogue.flat_yaml(conf / group / f"{option}.yaml")
    leaf = key.path.partition(".")[2]
    from_option = brought.get(key.path, brought.get(leaf))
    return f"{from_option} with {group}={option}, else {value}" if from_option not in (None, value) else value


def _brought_by_model(value: str, verb: str) -> tuple[str, str, str]:
    """The value of `${model.training.KEY}` with the command's own model, that in general, and that model."""
    conf, _ = catalogue.config_roots()
    source = value.strip("${}")
    model = default_options(verb)["model"]
    general = catalogue.show(catalogue.keys(verb)[source].default)
    return catalogue.flat_yaml(conf / "model" / f"{model}.yaml").get(source, general), general, f"model={model}"


def _chosen(group: str, verb: str) -> str | None:
    """The option of a group if none is chosen, by the command or by its model."""
    conf, _ = catalogue.config_roots()
    name = catalogue.flat_yaml(conf / f"{verb}.yaml").get(f"{group}.name", "")
    return _brought_by_model(name, verb)[0] if name.startswith("${") else default_options(verb).get(group)


def answer(words: list[str]) -> str:
    """The text of `dgpo help WORD ...`; raises UsageError for an unknown key or option."""
    if not words:
        return SHORT
    if len(words) > 1:
        return "\n\n".join(answer([word]) for word in words)
    name, _, option = words[0].partition("=")
    if name == "keys":
        return every_key(_default)
    if option and (name in ("recipe", catalogue.RECIPES) or any(name in catalogue.groups(verb) for verb in COMMANDS)):
        return option_text(name, option, _hanging)
    if name in ("recipe", catalogue.RECIPES):
        return example()
    verbs = [verb for verb in COMMANDS if name in catalogue.keys(verb)]
    if name in COMMANDS:  # `eval` and `rollout` are sections of dgpo train, too
        return command_help(name) + (f"\n\n{_key(name, verbs)}" if verbs else "")
    if verbs:
        return _key(name, verbs)
    if name.startswith("hydra."):
        return f"{name}: a key of Hydra; dgpo train --cfg hydra lists them, and https://hydra.cc explains them"
    for verb in COMMANDS:
        hint = unknown_key_hint(name, verb)
        if hint:
            raise UsageError(f"unknown key '{name}'", hint)
    raise UsageError(f"unknown key '{name}'", "dgpo help keys lists every key")


def _key(name: str, verbs: list[str]) -> str:
    key = catalogue.keys(verbs[0])[name]
    commands = ", ".join(f"dgpo {verb}" for verb in verbs)
    if key.is_section:
        files = catalogue.option_files(name) if name in catalogue.groups(verbs[0]) else {}
        return _section(name, key.meaning, files, verbs[0]) + f"\nused by: {commands}"
    lines = [f"{name}: {key.meaning}", f"  type     {catalogue.describe_type(key.type)}"]
    defaults = {verb: _default(catalogue.keys(verb)[name], verb) for verb in verbs}
    shown = set(defaults.values())
    lines += (
        [f"  default  {default}" for default in shown]
        if len(shown) == 1
        else [f"  default  {default} (dgpo {verb})" for verb, default in defaults.items()]
    )
    if key.unit:
        lines.append(f"  unit     {key.unit}")
    more = MORE.get(name, "").rstrip("\n")
    return "\n".join([*lines, f"  used by  {commands}", *([more] if more else [])])


def _section(name: str, meaning: str, files: dict[str, Path], verb: str) -> str:
    """A group's options, a line of explanation each, then its keys."""
    lines = [f"{name}: {meaning}"]
    width = max([len(option) for option in files], default=0) + len(name) + 3
    lines += [_hanging(f"{name}={option}", catalogue.first_comment(file), width) for option, file in files.items()]
    inner = [key for path, key in catalogue.keys(verb).items() if path.startswith(f"{name}.")] if verb else []
    width = max([len(key.path) for key in inner], default=0) + 2
    lines += ["", "Keys"] if inner else []
    lines += [_hanging(key.path, f"{key.meaning}{_unit(key)}", width) for key in inner if not key.is_section]
    return "\n".join(lines)
