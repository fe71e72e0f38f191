"""Which model is the reference: the policy's own, a copy of it, one from disk, or the one that a checkpoint kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_factory import save_random_model
from torch import Tensor

from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.config.model_groups import LoraConfig, ModelConfig, ReferenceConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.models.reference import load_reference
from dgpo_cli.models.saving import save_model
from dgpo_cli.processes import SOLO

HERE = Placement(StrategyConfig(), "cpu", SOLO)
INITIAL = ReferenceConfig()


@pytest.fixture
def plain(random_model: Path) -> ModelConfig:
    return ModelConfig(path=str(random_model))


@pytest.fixture
def adapted(plain: ModelConfig) -> ModelConfig:
    return replace(plain, lora=LoraConfig(rank=2))


def trainee(settings: ModelConfig, stored: Path | None = None) -> LanguageModel:
    return load_trainee(settings, HERE, stored, seed=0).model


def states(model: LanguageModel) -> Tensor:
    with torch.no_grad():
        return model.hidden_states(torch.arange(2, 12)[None])


def move(policy: LanguageModel) -> None:
    """The trained weights as a step could leave them."""
    with torch.no_grad():
        for weight in policy.model.parameters():
            if weight.requires_grad:
                weight.add_(0.01)


def test_before_the_first_step_the_reference_is_a_frozen_copy_of_the_policy(plain: ModelConfig) -> None:
    policy = trainee(plain)
    reference = load_reference(INITIAL, plain, policy, HERE)
    before = states(policy)
    move(policy)
    assert torch.equal(states(reference), before)
    assert not torch.equal(states(policy), before)
    assert not any(weight.requires_grad for weight in reference.model.parameters())


def test_after_a_resume_the_initial_policy_is_read_again_bit_for_bit(plain: ModelConfig, tmp_path: Path) -> None:
    policy = trainee(plain)
    before = states(policy)
    move(policy)
    save_model(policy, tmp_path / "model")
    resumed = trainee(plain, tmp_path / "model")
    assert torch.equal(states(resumed), states(policy))
    assert torch.equal(states(load_reference(INITIAL, plain, resumed, HERE, tmp_path / "never_kept")), before)


def test_a_reference_that_was_renewed_is_the_one_that_the_checkpoint_kept(plain: ModelConfig, tmp_path: Path) -> None:
    policy = trainee(plain)
    move(policy)
    save_model(policy, tmp_path / "reference")
    kept = states(policy)
    move(policy)
    renewed = replace(INITIAL, refresh_every=1)
    reference = load_reference(renewed, plain, policy, HERE, tmp_path / "reference")
    assert torch.equal(states(reference), kept)
    assert not any(weight.requires_grad for weight in reference.model.parameters())


@pytest.mark.parametrize("named", ["initial", "path"])
def test_the_base_of_an_adapter_is_not_read_again(named: str, adapted: ModelConfig, plain: ModelConfig) -> None:
    policy, base = trainee(adapted), states(trainee(plain))
    move(policy)
    settings = INITIAL if named == "initial" else ReferenceConfig(name="path", path=adapted.path)
    reference = load_reference(settings, adapted, policy, HERE)
    assert reference.model is policy.model
    assert torch.equal(states(reference), base)
    assert not torch.equal(states(policy), base)


def test_under_an_adapter_another_model_is_read(adapted: ModelConfig, tmp_path: Path) -> None:
    policy = trainee(adapted)
    other = save_random_model(tmp_path / "other", seed=4)
    reference = load_reference(ReferenceConfig(name="path", path=str(other)), adapted, policy, HERE)
    assert reference.model is not policy.model
    revised = ReferenceConfig(name="path", path=adapted.path, revision="another")  # of the base's own path
    assert load_reference(revised, adapted, policy, HERE).model is not policy.model


def test_a_renewed_reference_of_an_adapter_lies_in_the_same_model(adapted: ModelConfig, plain: ModelConfig) -> None:
    policy, base = trainee(adapted), states(trainee(plain))
    reference = load_reference(replace(INITIAL, refresh_every=2), adapted, policy, HERE)
    move(policy)
    assert reference.model is policy.model
    assert reference.adapter is not None
    assert reference.adapter.name == "reference"
    assert torch.equal(states(reference), base)


def test_another_vocabulary_is_refused(plain: ModelConfig, tmp_path: Path) -> None:
    other = save_random_model(tmp_path / "other", vocab_size=523)
    with pytest.raises(ConfigError, match="has 523 output ids, the policy 512"):
        load_reference(ReferenceConfig(name="path", path=str(other)), plain, trainee(plain), HERE)
