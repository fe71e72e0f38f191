"""From Hydra's composition to the typed configuration of a job.

Four things that Hydra cannot know: a run's folder as the model (its latest checkpoint, data, reward and benchmark), a
run that is continued (its config.yaml with the typed keys on top), whose grader an evaluation uses (`evaluation_reward`
has the rule), and by which gating stored rollouts were scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dgpo_cli.command_lines import command as command_line
from dgpo_cli.command_lines import escaped
from dgpo_cli.config import evaluation_reward
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.benchmarks import OF_ONE, ONE_EACH, name_of_file
from dgpo_cli.config.commands import EvalConfig, TrainConfig
from dgpo_cli.config.gatings import CHOOSES, gating_of_file
from dgpo_cli.config.hydra_errors import config_error
from dgpo_cli.config.overrides import parse
from dgpo_cli.config.stored import load_node
from dgpo_cli.config.validation_rows import hold_out
from dgpo_cli.errors import ConfigError, Problem
from dgpo_cli.files import read_name

# An option of the group on the left brings options of those on the right.
BRINGS = {"model": ("data", "reward", "benchmark"), "data": ("reward", "benchmark"), "algo": ("gating",)}
# Keys that may differ between a run and its continuation.
FREE_ON_RESUME = (
    "steps",
    "name",
    "logger",
    "checkpoint",
    "eval",
    "strategy",
    "resume",
    "resume_allow",
    "overwrite",
    "push_to_hub",
    *("report", "rollout.alternatives"),
    "dry_run",
    "probe",
    "sweep",
    # Where and how a server draws; not in which dtype, nor over how many devices, which change its rounding.
    *("engine.urls", "engine.python", "engine.replicas", "engine.devices", "engine.gpu_memory_fraction"),
    "engine.colocated",
    *("engine.max_model_len", "engine.start_seconds", "engine.sync", "engine.sync_folder"),
    *("engine.concurrency", "engine.retries", "engine.timeout_seconds"),
)
# Keys of `model` that a run's folder brings.
FROM_A_RUN = ("dtype", "quantization", "chat_template", "template", "stop_tokens", "threads", "training")
# Keys that say which benchmark, so that a run's are not asked for.
CHOOSE_ONE = ("data", catalogue.RECIPES, "benchmark", "benchmark.completions", "benchmark.path", *OF_ONE)
# Keys that are about one start of the program, and not about the experiment.
OF_ONE_START = ("resume", "resume_allow", "overwrite", "dry_run", "probe")


def finish(
    command: str,
    config: DictConfig,
    overrides: list[str],
    base: Path | None = None,
    others: Sequence[DictConfig] = (),
    place: int = 0,
) -> Any:
    """The typed configuration of a job composed from `overrides` (those of the command, not Hydra's).

    base: a whole configuration that the overrides change, in place of conf/.
    others: of training, the compositions of the further benchmarks of `benchmark=[a,b]`.
    place: of an evaluation of a run, which of the run's benchmarks.
    """
    typed = {parsed.key_or_group: parsed.value() for parsed in map(parse, overrides) if not parsed.is_delete()}
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
        if others:
            config.other_benchmarks = [other.benchmark for other in others]
    resumed = command == "train" and bool(config.resume)
    try:
        for benchmark in _benchmarks(config):
            if benchmark.name == "file" and benchmark.path:
                benchmark.name = name_of_file(benchmark.path)
        if resumed:
            config = _resumed(config, typed)
        elif base is not None:
            config = _changed(command, base, config, typed)
        elif "model" in config:
            _follow_run_folders(config, typed, command, place)
        if command == "rollout" and config.rollouts and not any(name in typed for name in CHOOSES):
            _take_gating_of_file(config, typed)
        result = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise config_error(error, command) from error
    if isinstance(result, EvalConfig | TrainConfig) and result.benchmark.name == "file" and result.benchmark.path:
        result.benchmark.name = name_of_file(result.benchmark.path)
    if isinstance(result, TrainConfig) and not resumed and (base is None or "data.validation_fraction" in typed):
        hold_out(result, typed)
    if isinstance(result, EvalConfig | TrainConfig) and not resumed and base is None:
        evaluation_reward.choose(result, typed)
    return result


def finish_each(command: str, config: DictConfig, overrides: list[str], base: Path | None = None) -> list[Any]:
    """As `finish`: one configuration, or of an evaluation of a run one for each of its benchmarks, if none is typed."""
    typed = {parsed.key_or_group for parsed in map(parse, overrides)}
    count = 1
    if command == "eval" and base is None and "model.path" in typed and not typed.intersection(CHOOSE_ONE):
        run, is_study = str(config.model.path), config.swap.path or config.study.name != "none"
        if not is_study and run_model(run) is not None:
            stored = OmegaConf.load(Path(run) / "config.yaml")
            count += len(stored.get("other_benchmarks") or ()) if isinstance(stored, DictConfig) else 0
    return [finish(command, config, overrides, base, place=place) for place in range(count)]


def _changed(command: str, base: Path, config: DictConfig, typed: dict[str, Any]) -> DictConfig:
    """A whole configuration with the typed keys on top, for a run of its own."""
    stored = load_node(command, base)
    for name in OF_ONE_START:
        if name in config:
            stored[name] = config[name]
    result = stored.copy()
    for name, value in typed.items():
        _put(result, config, name, value, typed, command)
    for group in ("model", "reference", "swap"):
        model = run_model(result[group].path) if group in result and result[group].path else None
        if model is not None:
            result[group].path = escaped(str(model))
    if "benchmark" in result and "reward" in result:
        _keep_grader(result, stored, typed)
    return result


def run_model(path: str) -> Path | None:
    """The model of a run's latest complete checkpoint, or None if `path` is no run's folder."""
    folder = Path(path)
    if not (folder / "config.yaml").is_file() or (folder / "config.json").is_file():
        return None
    latest = folder / "checkpoints" / "latest"
    if not latest.is_file():
        hint = f"{command_line('train', resume=path)} continues it"
        raise ConfigError(f"{path}: this run has no complete checkpoint yet", hint)
    name = read_name(latest)
    model = latest.with_name(name) / "model" if name else None
    if model is None or not model.is_dir():
        said = f"it names a checkpoint that is not there: no folder {model}" if model else "it holds no name"
        hint = f"{command_line('train', resume=path)} finds the newest intact one; or model.path=CHECKPOINT/model"
        raise ConfigError(f"{latest}: {said}", hint)
    return model.resolve()


def _follow_run_folders(config: DictConfig, typed: dict[str, Any], command: str, place: int) -> None:
    for group in ("model", "reference", "swap"):
        path = config.get(group, {}).get("path")
        model = run_model(path) if path else None
        if model is None:
            continue
        if group == "model" and "model.path" in typed:
            _take_from_run(config, Path(path), typed, command, place)
        config[group].path = escaped(str(model))


def _take_from_run(config: DictConfig, run: Path, typed: dict[str, Any], command: str, place: int) -> None:
    """The run's data, reward, benchmark and ways of prompting and training, except for typed keys."""
    stored = OmegaConf.load(run / "config.yaml")
    assert isinstance(stored, DictConfig)
    taken = [f"model.{name}" for name in FROM_A_RUN]
    if "data" not in typed and catalogue.RECIPES not in typed:
        taken += [group for group in ("data", "reward", "benchmark") if group not in typed]
        taken += ["other_benchmarks"] if "benchmark" in taken else []
    for name in taken:
        node = OmegaConf.select(stored, f"other_benchmarks[{place - 1}]" if name == "benchmark" and place else name)
        if node is not None and catalogue.keys(command).get(name) is not None:
            OmegaConf.update(config, name, node, merge=True)
    for name, value in typed.items():
        if any(name == group or name.startswith(f"{group}.") for group in taken) and "." in name:
            OmegaConf.update(config, name, value, merge=True)


def _take_gating_of_file(config: DictConfig, typed: dict[str, Any]) -> None:
    """The gating that the stored rollouts were scored by, with its typed keys."""
    found = gating_of_file(Path(config.rollouts))
    if found is None:
        return
    OmegaConf.update(config, "gating", OmegaConf.structured(found[0]), merge=False)
    for name, value in typed.items():
        if name.startswith("gating."):
            OmegaConf.update(config, name, value, merge=True)


def _resumed(config: DictConfig, typed: dict[str, Any]) -> DictConfig:
    """The run's own configuration with the typed keys on top; differences that are not allowed are refused."""
    folder = Path(config.resume)
    if not (folder / "config.yaml").is_file():
        what = "this folder holds no run: it has no config.yaml" if folder.is_dir() else "there is no such folder"
        raise ConfigError(f"resume={folder}: {what}", "resume= takes the folder that dgpo train printed at its end")
    stored = load_node("train", folder / "config.yaml")
    if catalogue.RECIPES in typed:
        result = config
    else:
        result = stored.copy()
        for name, value in typed.items():
            _put(result, config, name, value, typed)
    _keep_grader(result, stored, typed)
    allowed = [*FREE_ON_RESUME, *config.resume_allow]
    here, there = _leaves(result), _leaves(stored)
    differing = [
        name
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name) and not any(name == key or name.startswith(f"{key}.") for key in allowed)
    ]
    if differing:
        hint = f"leave out what was typed, or allow it: resume_allow=[{','.join(_together(differing))}]"
        raise ConfigError(
            "",
            problems=tuple(
                Problem(
                    f"{name} differs from the run that is continued: {catalogue.show(there.get(name))} there, "
                    f"{catalogue.show(here.get(name))} here",
                    hint if name == differing[-1] else "",
                )
                for name in differing
            ),
        )
    result.resume, result.resume_allow = escaped(config.resume), config.resume_allow
    result.overwrite = config.overwrite
    return result


def _together(names: list[str]) -> list[str]:
    """The names, those of a group as the group if they are many, so that a hint can hold them."""
    groups = [name.partition(".")[0] for name in names]
    return list(
        dict.fromkeys(group if groups.count(group) > 3 else name for name, group in zip(names, groups, strict=True))
    )


def _put(
    result: DictConfig, config: DictConfig, name: str, value: Any, typed: dict[str, Any], command: str = "train"
) -> None:
    """One typed override on a stored configuration; an option brings what it brings in Hydra."""
    if name in catalogue.groups(command):
        for group in (name, *(g for g in BRINGS.get(name, ()) if g not in typed and g in result)):
            OmegaConf.update(result, group, config[group], merge=False)
            if group == "benchmark" and "other_benchmarks" in result:
                result.other_benchmarks = config.other_benchmarks
        return
    if name.startswith("benchmark.") and name not in (*ONE_EACH, *OF_ONE):
        for other in result.get("other_benchmarks", ()):
            OmegaConf.update(other, name.removeprefix("benchmark."), value, merge=True)
    if name in ("model.path", "reference.path", "swap.path") and value:
        before, path = OmegaConf.select(result, name), str(OmegaConf.select(config, name))
        if before and Path(path).resolve() / "checkpoints" in Path(before).resolve().parents:
            return  # the run that it was resolved from
        value = escaped(str(run_model(path) or path))
    OmegaConf.update(result, name, value, merge=True)


def _keep_grader(result: DictConfig, stored: DictConfig, typed: dict[str, Any]) -> None:
    """A continued run evaluates by the grader that it had, unless another one, or another benchmark, is typed."""
    if "benchmark.reward" in typed:
        return
    chosen = evaluation_reward.typed_reward(typed)
    is_other = chosen and any(result.reward[key] != stored.reward[key] for key in ("name", "path"))
    graders = {benchmark.name: benchmark.reward for benchmark in _benchmarks(stored)}
    for benchmark in _benchmarks(result):
        if benchmark.name in graders and not is_other:
            benchmark.reward = graders[benchmark.name]
        elif chosen and benchmark.name is not None:
            benchmark.reward = result.reward.name


def _benchmarks(config: DictConfig) -> list[DictConfig]:
    """Those of a configuration, the first one first."""
    return [config.benchmark, *config.get("other_benchmarks", ())] if "benchmark" in config else []


def _leaves(config: DictConfig) -> dict[str, Any]:
    """Every value by its dotted path, lists whole but those of sections: other_benchmarks.0.path."""
    found: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        for name, value in node.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                value = dict(enumerate(value))
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                found[prefix + str(name)] = value

    walk(OmegaConf.to_container(config, resolve=True), "")
    return found
