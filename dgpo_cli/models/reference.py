"""The reference, from its configuration to where it computes: the frozen model that credit and KL are measured from.

Four kinds, cheapest first: the policy's own model with its adapter off or with the adapter's earlier weights on, a copy
of a policy that has not moved yet, a model that is read from disk. frozen.py renews them.
"""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.config.model_groups import ModelConfig, ReferenceConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.frozen import frozen_copy, renewable_reference
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import AdapterView
from dgpo_cli.models.model_paths import adapter_base
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import read_policy


def load_reference(
    settings: ReferenceConfig,
    model: ModelConfig,
    policy: LanguageModel,
    placement: Placement,
    stored: Path | None = None,
) -> LanguageModel:
    """The reference, on the policy's vocabulary.

    model: the policy's configuration. policy: placed already. stored: the folder in which a checkpoint keeps a
    reference that was renewed; None if the run begins.

    Raises:
        ConfigError: it has another vocabulary than the policy, or no path is set.
        DataError: as `load_model` does.
    """
    initial, renewed = settings.name == "initial", settings.refresh_every > 0
    if policy.adapter is not None and _is_under(policy.adapter, settings):
        return renewable_reference(policy, stored) if renewed else frozen_copy(policy)
    # Before the first step the policy is its own reference, and nothing is read twice. A sharded policy is not copied:
    # the shards of its reference have another dtype, and may rest in another place.
    if initial and stored is None and policy.shards is None:
        return frozen_copy(policy, renewed=renewed)
    read = None
    if placement.loads_here:
        read = _read(settings, model, placement.loads_on, stored if renewed else None, policy.vocabulary_size)
    return placement.reference(read, renewed=renewed)


def _is_under(adapter: AdapterView, settings: ReferenceConfig) -> bool:
    """Whether the reference is the model that the policy's adapter is trained on: it is in memory already."""
    if settings.name == "initial":
        return True
    return settings.path is not None and adapter.is_on(adapter_base(settings.path), settings.revision)


def _read(
    settings: ReferenceConfig, model: ModelConfig, device: str, stored: Path | None, vocabulary_size: int
) -> LanguageModel:
    """The reference that a checkpoint kept, or the configured one; frozen, not yet placed."""
    if stored is not None:
        reference = read_policy(model, device, path=str(stored)).model
    else:
        reference = _read_configured(settings, model, device)
        if reference.vocabulary_size != vocabulary_size:
            raise ConfigError(
                f"the reference {reference.path} has {reference.vocabulary_size} output ids, the policy "
                f"{vocabulary_size}: a distance between them has no meaning",
                "reference.path=MODEL of the same family",
            )
    reference.model.requires_grad_(False)
    return reference


def _read_configured(settings: ReferenceConfig, model: ModelConfig, device: str) -> LanguageModel:
    initial = settings.name == "initial"
    path = model.path if initial else settings.path
    if path is None:
        raise ConfigError("reference=path needs reference.path", "reference.path=FOLDER or a hub id")
    return load_model(
        path,
        dtype=model.dtype.name,
        device=device,
        revision=model.revision if initial else settings.revision,
        trust_remote_code=model.trust_remote_code,
        key="model.path" if initial else "reference.path",
        merge_adapter=True,  # as `load_trainee` does: an initial policy that is read again is the same to the bit
    )
