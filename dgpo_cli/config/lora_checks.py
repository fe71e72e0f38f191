"""Problems of `model.lora.*` and of adapters' folders, before torch or peft is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import EvalConfig, RolloutConfig, TrainConfig
from dgpo_cli.errors import Problem


def trained_adapter(config: TrainConfig) -> Iterator[Problem]:
    """Problems of model.lora in `dgpo train`."""
    lora, path = config.model.lora, config.model.path
    if not lora.rank:
        given = [name for name in ("alpha", "target_modules", "merge") if getattr(lora, name)]
        for name in given:
            shown = catalogue.show(getattr(lora, name))
            yield Problem(f"model.lora.{name}={shown}: no adapter is trained", "model.lora.rank=16 trains one")
        return
    yield from needs_peft("model.lora.rank")
    if lora.target_modules is not None and not lora.target_modules:
        yield Problem("model.lora.target_modules: expected names of layers, got []", "null is every linear layer")
    if path and holds_adapter(path):
        message = f"model.path: '{path}' is an adapter, and model.lora.rank={lora.rank} would train one on top of it"
        yield Problem(message, "model.lora.rank=0 trains on from the merged weights; resume=RUN continues a run")
    if config.reference.refresh_every and config.reference.name == "path":
        message = f"reference.refresh_every={config.reference.refresh_every}: under LoRA it renews reference=initial"
        yield Problem(message, "leave reference.path out: the adapter's earlier weights become the reference")


def untrained_adapter(config: EvalConfig | RolloutConfig) -> Iterator[Problem]:
    lora = config.model.lora
    if lora.rank or lora.alpha or lora.target_modules or lora.merge:
        message = "model.lora: adapters are trained by dgpo train alone; this command takes them as they are"
        yield Problem(message, "model.path=RUN, or the folder of an adapter")


def needs_peft(asked: str) -> Iterator[Problem]:
    if importlib.util.find_spec("peft") is None:
        yield Problem(f"{asked}: adapters need peft, which is not installed", "pip install 'dgpo[lora]'")


def adapter_folder(name: str, path: str) -> Iterator[Problem]:
    """Problems of an adapter's folder."""
    yield from needs_peft(f"{name}={path}")
    if any(Path(path).glob("model*.safetensors")):
        message = f"{name}: '{path}' holds a whole model and an adapter, and does not say which is meant"
        yield Problem(message, "move adapter_config.json and adapter_model.safetensors into a folder of their own")


def holds_adapter(path: str) -> bool:
    """Whether a folder is read as an adapter, by the rule of transformers."""
    return (Path(path) / "adapter_config.json").is_file()
