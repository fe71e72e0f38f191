"""The policy, from its configuration to where it computes: to be trained, or to be sampled and scored.

The way is read -> place: `load_model` of loading.py reads, `Placement.policy` places. The reference has its own file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import AdapterView, add_adapter, load_adapter
from dgpo_cli.models.model_paths import adapter_base
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.stop_ids import check_stops, stop_token_ids
from dgpo_cli.models.tokenizer_checks import check_tokenizer
from dgpo_cli.terminal import say


@dataclass(frozen=True)
class Policy:
    """A loaded model and the ids that end its completions."""

    model: LanguageModel
    stop_ids: frozenset[int]


def load_policy(settings: ModelConfig, placement: Placement) -> Policy:
    """The configured model, to sample and to score with: none of its weights takes a gradient.

    Raises:
        ConfigError, DataError: no model is named, or as `load_model`, `stop_token_ids` and the checks of ids do.
    """
    read = read_policy(settings, placement.loads_on) if placement.loads_here else None
    if read is not None:
        read.model.model.requires_grad_(False)
    return _placed(read, placement)


def load_trainee(settings: ModelConfig, placement: Placement, stored: Path | None, *, seed: int) -> Policy:
    """The policy to train, as it was before the first step, or as a checkpoint left it in the folder `stored`.

    With LoRA that is the configured model, frozen, and its adapter. Without, an adapter at model.path is merged.

    Raises:
        ConfigError: model.lora.rank would train an adapter on top of another; and as `load_policy` does.
    """
    read = _read_trainee(settings, placement.loads_on, stored, seed) if placement.loads_here else None
    return _placed(read, placement)


def read_policy(settings: ModelConfig, device: str, *, path: str | None = None, merge_adapter: bool = False) -> Policy:
    """The configured model, or the same at another path (in a checkpoint), not yet placed.

    Says which ids can never come. Raises as `load_policy` does.
    """
    if settings.path is None:
        raise ConfigError("model.path is not set", "model.path=FOLDER or a hub id, or model=tiny")
    model = load_model(
        path or settings.path,
        dtype=settings.dtype.name,
        device=device,
        revision=settings.revision if path is None else None,
        trust_remote_code=settings.trust_remote_code,
        merge_adapter=merge_adapter,
        quantization=settings.quantization.name,
    )
    stop_ids = stop_token_ids(
        model.tokenizer, model.model.generation_config, settings.chat_template, settings.stop_tokens
    )
    check_ids(model, stop_ids, settings.stop_tokens)
    return Policy(model, stop_ids)


def check_ids(model: LanguageModel, stop_ids: frozenset[int], typed: list[str]) -> None:
    """Whether the tokenizer speaks of the ids that the model has; says which of them never come."""
    where = {"path": model.path, "key": "model.path"}
    notes = check_tokenizer(model.tokenizer, model.embedded_ids, **where)
    notes += check_stops(model.tokenizer, stop_ids, model.vocabulary_size, typed=typed, **where)
    for note in notes:
        say(note)


def _read_trainee(settings: ModelConfig, device: str, stored: Path | None, seed: int) -> Policy:
    if not settings.lora.rank:
        return read_policy(settings, device, path=None if stored is None else str(stored), merge_adapter=True)
    policy = read_policy(settings, device)
    if policy.model.adapter is not None:
        raise ConfigError(
            f"model.path: '{settings.path}' is an adapter, and model.lora.rank={settings.lora.rank} would train one "
            "on top of it",
            "model.lora.rank=0 trains on from the merged weights",
        )
    if stored is not None:
        adapter = load_adapter(policy.model.model, stored, trained=True)
    else:
        adapter = _fresh_adapter(policy.model, settings, seed)
    return replace(policy, model=replace(policy.model, adapter=adapter))


def _fresh_adapter(model: LanguageModel, settings: ModelConfig, seed: int) -> AdapterView:
    lora = settings.lora
    assert lora.rank
    return add_adapter(
        model.model,
        rank=lora.rank,
        alpha=lora.alpha,
        target_modules=lora.target_modules,
        base=adapter_base(str(settings.path)),
        revision=settings.revision,
        seed=derive_seed("lora", seed),
    )


def _placed(read: Policy | None, placement: Placement) -> Policy:
    """read: None in a process that gets its shards from the main one."""
    stop_ids = placement.known(None if read is None else read.stop_ids)
    return Policy(placement.policy(None if read is None else read.model), stop_ids)
