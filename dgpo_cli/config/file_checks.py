"""Files and folders that are not there, or not what they should be: models, data, templates.

Hub ids cannot be checked without a network, so only what is plainly local is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.config.groups import BenchmarkConfig, ComputeDtype, DataConfig, Dtype
from dgpo_cli.config.lora_checks import adapter_folder, holds_adapter
from dgpo_cli.config.rollout_files import is_of_others
from dgpo_cli.errors import Problem

DATA_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
TEMPLATES = ("dapo", "boxed", "plain")
BUNDLED = {"model": ("bundled:tiny",), "data": ("bundled:digit_chain",)}


def models(config: Any) -> Iterator[Problem]:
    """The policy and the reference, if the command loads them, and the template of prompts."""
    if _loads_a_model(config):
        yield from _model("model", config.model.path)
        yield from _precision(config)
    if hasattr(config, "reference") and config.reference.name == "path":
        yield from _model("reference", config.reference.path)
    if isinstance(config, EvalConfig) and config.swap.path is not None:
        yield from _model("swap", config.swap.path)
    yield from _template("model", config.model.template)


def _loads_a_model(config: Any) -> bool:
    if isinstance(config, EvalConfig):
        return not config.benchmark.completions and config.engine.name != "openai"
    if isinstance(config, RolloutConfig):
        return config.grade is None and (config.rollouts is None or is_of_others(config.rollouts))
    return True


def _precision(config: Any) -> Iterator[Problem]:
    if config.model.dtype is Dtype.bfloat16 and config.strategy.compute_dtype is ComputeDtype.float32:
        message = "strategy.compute_dtype=float32: weights in bfloat16 compute in bfloat16 (model.dtype=bfloat16)"
        yield Problem(message, "model.dtype=float32 holds the same values in float32; or leave strategy.compute_dtype")


def _model(group: str, path: str | None) -> Iterator[Problem]:
    name = f"{group}.path"
    if not path:
        yield Problem(f"{name}: {group}=path needs a path", f"{name}=HUB_ID or a folder")
    elif path.startswith("bundled:"):
        if path not in BUNDLED["model"]:
            yield Problem(f"{name}: nothing bundled is called '{path}'", "bundled:tiny is")
    elif Path(path).is_file():
        yield Problem(f"{name}: expected a model's folder, got the file '{path}'", "the folder that holds config.json")
    elif Path(path).is_dir():
        if not any((Path(path) / file).is_file() for file in ("config.json", "adapter_config.json")):
            yield Problem(f"{name}: no model in folder '{path}': it holds no config.json", "a run's folder works too")
        elif holds_adapter(path):
            yield from adapter_folder(name, path)
    elif not _is_hub_id(path):
        options = [option for option in catalogue.options("model") if option != "path"]
        close = catalogue.nearest(path, options)
        hint = f"did you mean {group}={close}?" if close else "a hub id is written OWNER/NAME"
        yield Problem(f"{name}: no folder '{path}'", hint)


def _is_hub_id(path: str) -> bool:
    """OWNER/NAME. If OWNER is a folder here, a folder below it was mistyped."""
    owner, slash, _ = path.partition("/")
    return bool(slash and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not Path(owner).is_dir())


def _template(group: str, template: str | None) -> Iterator[Problem]:
    if template is None or template in TEMPLATES or Path(template).is_file():
        return
    close = catalogue.nearest(template, TEMPLATES)
    hint = (
        f"did you mean {group}.template={close}?" if close else f"{' | '.join(TEMPLATES)}, or a file with {{problem}}"
    )
    yield Problem(f"{group}.template: no template or file '{template}'", hint)


def data(config: TrainConfig | RolloutConfig) -> Iterator[Problem]:
    """The prompts, unless they come from elsewhere."""
    if isinstance(config, RolloutConfig) and (config.prompt is not None or config.rollouts is not None):
        return
    if isinstance(config, RolloutConfig) and config.grade is not None and config.data.path is None:
        return  # the file may bring all that is needed
    yield from _rows(config.data, "data")


def benchmark_files(config: TrainConfig | EvalConfig) -> Iterator[Problem]:
    """The problems, their template, and completions that are to be graded."""
    benchmark = config.benchmark
    if benchmark.path or (benchmark.name == "file" and not benchmark.completions):
        yield from _rows(benchmark, "benchmark")
    yield from _template("benchmark", benchmark.template)
    if benchmark.completions and not Path(benchmark.completions).is_file():
        message = f"benchmark.completions: no file '{benchmark.completions}'"
        yield Problem(message, "a JSONL file with the field completion, relative to this folder")


def _rows(source: DataConfig | BenchmarkConfig, group: str) -> Iterator[Problem]:
    name, path = f"{group}.path", source.path
    if not path:
        yield Problem(f"{name}: {group}=file needs a file", f"{name}=FILE ({', '.join(DATA_ENDINGS)}) or a hub id")
    elif path.startswith("bundled:"):
        if path not in BUNDLED["data"]:
            yield Problem(f"{name}: nothing bundled is called '{path}'", "bundled:digit_chain is")
    elif Path(path).is_file():
        if Path(path).suffix.lower() not in DATA_ENDINGS:
            yield Problem(f"{name}: cannot read '{path}' by its ending", f"one of {', '.join(DATA_ENDINGS)}")
    elif Path(path).is_dir():
        yield Problem(f"{name}: expected a file, got the folder '{path}'", f"a file: {', '.join(DATA_ENDINGS)}")
    elif path.endswith(DATA_ENDINGS) or not _is_hub_id(path):
        close = catalogue.nearest(path, catalogue.options(group))
        hint = (
            f"did you mean {group}={close}?" if close else "paths are relative to this folder; a hub id is OWNER/NAME"
        )
        yield Problem(f"{name}: no file '{path}'", hint)
    if group == "data":
        yield from _template(group, source.template)
