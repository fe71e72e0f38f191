"""`dry_run=true`: what a command would take, printed before anything is loaded. Without a GPU no torch is imported."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgpo_cli.bundled import bundled_path
from dgpo_cli.commands.data_rows import data_rows
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.lora_checks import holds_adapter
from dgpo_cli.config.model_groups import ArchitectureConfig
from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.data.digit_chain import Form
from dgpo_cli.data.problems import load_problem_set
from dgpo_cli.data.prompts import SLOT, read_template
from dgpo_cli.environment import place
from dgpo_cli.errors import ConfigError, DgpoError
from dgpo_cli.planning.architecture import Architecture, from_config, from_json
from dgpo_cli.planning.batches import Data
from dgpo_cli.planning.fitting import GPU_SIZES
from dgpo_cli.planning.layout import Machine
from dgpo_cli.planning.needs import MOST_GPUS, fewest_gpus
from dgpo_cli.planning.plan import plan_evaluation, plan_rollout, plan_training
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.reporting.plan_view import plan_tables
from dgpo_cli.reporting.tables import show

BUNDLED = "bundled:"


def show_plans(command: str, configs: list[Any]) -> None:
    """A table on a terminal; in a pipe one JSON object, or a list of them if the command has several jobs."""
    plans = [plan_of(config) for config in configs]
    records = [made.as_record() for made in plans]
    show([table for made in plans for table in plan_tables(made)], records if len(records) > 1 else records[0])


def plan_of(config: Any) -> Plan:
    """The plan of a configuration on this machine.

    Raises:
        ConfigError: the model's architecture is neither stated nor at hand.
    """
    if isinstance(config, EvalConfig) and config.benchmark.completions:
        raise ConfigError("benchmark.completions: graded without a model, so there is nothing to plan", "dry_run=false")
    if isinstance(config, RolloutConfig) and config.rollouts is not None:
        raise ConfigError("rollouts: stored signals need no model, so there is nothing to plan", "dry_run=false")
    if config.engine.name == "openai":
        raise ConfigError("engine=openai: the server holds the model, so there is nothing to plan", "dry_run=false")
    if isinstance(config, EvalConfig) and config.engine.name == "vllm" and config.engine.urls:
        raise ConfigError("engine.urls: those servers hold the model, so there is nothing to plan", "dry_run=false")
    model = architecture_of("model", config.model.path, config.model.architecture)
    machine = this_machine()
    notes = _notes(model)
    if isinstance(config, EvalConfig):
        return plan_evaluation(config, model, machine, _benchmark_facts(config), notes=notes)
    data = _data_facts(config)
    if isinstance(config, RolloutConfig):
        return plan_rollout(config, model, machine, data, _reference(config), notes=notes)
    return max(
        (_plan_of_training(view, model, machine, data, notes) for view in config.for_each_benchmark()), key=_evaluation
    )


def _plan_of_training(config: TrainConfig, model: Architecture, machine: Machine, data: Data, notes: Any) -> Plan:
    facts = (data, _reference(config), _benchmark_facts(config))
    made = plan_training(config, model, machine, *facts, notes=notes)
    return (
        made if not made.fits or any(made.fits.values()) else _with_number_of_gpus(made, config, model, machine, *facts)
    )


def _evaluation(made: Plan) -> int:
    """Bytes of the evaluation: of several benchmarks, which come one after the other, the largest one's count."""
    phase = made.phases.get("evaluation")
    return phase.total if phase is not None else 0


def _with_number_of_gpus(made: Plan, config: TrainConfig, model: Architecture, machine: Machine, *facts: Any) -> Plan:
    """A plan that does not fit, with the number of GPUs on which it would."""
    if made.layout.device != "cuda" or made.layout.strategy not in SHARDED:
        return made
    sizes = GPU_SIZES if machine.gpu_bytes is None else {"this size": machine.gpu_bytes}
    counts = {name: fewest_gpus(config, model, capacity, *facts) for name, capacity in sizes.items()}
    told = [f"{count} GPUs of {name}" for name, count in counts.items() if count is not None]
    if not told and made.peak_phase == "rollout" and made.servers.get("colocated"):
        return made  # the share of a colocated server is too large, whatever their number
    text = f"it fits from {' or '.join(told)} on" if told else f"no number of GPUs up to {MOST_GPUS} makes it fit"
    return replace(made, warnings=(made.warnings[0], text, *made.warnings[1:]))


def architecture_of(group: str, path: str | None, stated: ArchitectureConfig | None = None) -> Architecture:
    """A folder's own config.json, the architecture stated, that of a model option of the same hub id, or the cache's.

    Raises:
        ConfigError: none of these is there.
    """
    if path is not None and holds_adapter(path):
        from dgpo_cli.models.model_paths import named_base

        path, _ = named_base(Path(path))
    folder = _folder(path)
    try:
        if folder is not None and (folder / "config.json").is_file():
            return from_json(folder / "config.json")
        found = (from_config(stated) if stated is not None else None) or _of_an_option(path)
        cached = None if found is not None or path is None else _cached(path)
        if cached is not None:
            found = from_json(cached)
    except (OSError, ValueError) as error:
        hint = "config.json as transformers writes it"
        raise ConfigError(f"{group}.path={path}: no plan can be made: {error}", hint) from error
    if found is None:
        raise ConfigError(
            f"{group}.path={path}: its config.json is not on this machine, and no model option states its sizes",
            f"hf download {path} config.json, or a model option: model={'|'.join(catalogue.options('model'))}",
        )
    return found


def _folder(path: str | None) -> Path | None:
    if path is None:
        return None
    if path.startswith(BUNDLED):
        return bundled_path(path.removeprefix(BUNDLED))
    return Path(path) if Path(path).is_dir() else None


def _of_an_option(path: str | None) -> Architecture | None:
    for file in catalogue.option_files("model").values():
        values = catalogue.flat_yaml(file)
        if path is not None and values.get("model.path") == path:
            prefix = "model.architecture."
            stated = {name.removeprefix(prefix): text for name, text in values.items() if name.startswith(prefix)}
            return from_config(ArchitectureConfig(**{name: _plain(text) for name, text in stated.items()}))
    return None


def _plain(text: str) -> Any:
    return text == "true" if text in ("true", "false") else int(text)


def _cached(path: str) -> Path | None:
    """A hub model's config.json in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, "config.json")
    return Path(found) if isinstance(found, str) else None


def _reference(config: TrainConfig | RolloutConfig) -> Architecture | None:
    return architecture_of("reference", config.reference.path) if config.reference.name == "path" else None


def _notes(model: Architecture) -> tuple[str, ...]:
    if model.family is not None:
        return ()
    return ("an architecture that the plan does not know: counted like a Llama of the same sizes, so roughly",)


def this_machine() -> Machine:
    """GPUs, memory and free disk. torch is asked only if there is a driver."""
    gpus, gpu_bytes = 0, None
    if any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        import torch

        gpus = torch.cuda.device_count()
        gpu_bytes = torch.cuda.mem_get_info(0)[1] if gpus else None
    here = place()
    return Machine(gpus, gpu_bytes, _cpu_bytes(), shutil.disk_usage(Path.cwd()).free, here.size if here else None)


def _cpu_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # not told on this system
        return None


def _data_facts(config: TrainConfig | RolloutConfig) -> Data:
    """Rows and the longest prompt of data that is at hand; of a hub's nothing is known."""
    data = config.data
    if isinstance(config, RolloutConfig) and config.prompt is not None:
        return Data(1, len(config.prompt) + _template_length(data.template or config.model.template))
    if not _at_hand(data.path):
        return Data()
    loaded = data_rows(data, seed=config.seed)
    return _facts(loaded.problems, data.template or config.model.template)


def _benchmark_facts(config: EvalConfig | TrainConfig) -> Data:
    benchmark = config.benchmark
    if not _at_hand(benchmark.path):
        return Data()
    loaded = load_problem_set(
        str(benchmark.path),
        prompt_key=benchmark.prompt_key,
        answer_key=benchmark.answer_key,
        limit=benchmark.limit,
        seed=config.seed,
        size=512,
        form=Form(benchmark.chain_steps, benchmark.filler),
    )
    return _facts(loaded.problems, benchmark.template or config.model.template)


def _at_hand(path: str | None) -> bool:
    return path is not None and (path.startswith(BUNDLED) or Path(path).is_file())


def _facts(problems: list[Any], template: str) -> Data:
    longest = max((sum(len(text) for _, text in problem.messages) for problem in problems), default=0)
    return Data(len(problems), longest + _template_length(template))


def _template_length(template: str) -> int:
    try:
        return len(read_template(template)) - len(SLOT)
    except DgpoError:
        return 0
