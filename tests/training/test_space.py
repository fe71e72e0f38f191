"""The disk before the first step: what a run will need, and what is refused or said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from model_factory import save_random_model

from dgpo_cli.config.commands import OptimConfig, TrainConfig
from dgpo_cli.config.groups import SaveRollouts
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.frozen import renewable_reference
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import add_adapter
from dgpo_cli.training.checkpoint import Checkpoints, RunState
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.space import DiskNeed, check_space, checkpoint_bytes, predicted_need


@pytest.mark.parametrize("vocabulary", [512, 20_000])
def test_a_checkpoint_takes_what_was_predicted(tmp_path: Path, vocabulary: int) -> None:
    import torch

    model = load_model(str(save_random_model(tmp_path / "model", vocab_size=vocabulary, hidden_size=64)))
    optimizer = Optimizer(model.model, OptimConfig())
    for parameter in optimizer.parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.update(1e-3)
    for reference in (None, model):
        path = Checkpoints(tmp_path, keep=1).save(RunState(step=1), model, optimizer, reference)
        written = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        predicted = checkpoint_bytes(model, reference)
        assert written <= predicted <= 1.5 * written + (1 << 18)


@pytest.mark.parametrize("merged", [False, True])
def test_a_checkpoint_of_an_adapter_takes_what_was_predicted(tmp_path: Path, merged: bool) -> None:
    import torch

    base = save_random_model(tmp_path / "model", hidden_size=256)
    model = load_model(str(base))
    model.adapter = add_adapter(
        model.model, rank=8, alpha=None, target_modules=None, base=str(base), revision=None, seed=0
    )
    reference = renewable_reference(model, None)
    optimizer = Optimizer(model.model, OptimConfig())
    for parameter in optimizer.parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.update(1e-3)
    path = Checkpoints(tmp_path, keep=1, merge_adapter=merged).save(RunState(step=1), model, optimizer, reference)
    written = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    predicted = checkpoint_bytes(model, reference, merged=merged)
    assert written <= predicted <= 1.5 * written + (1 << 18)
    weights = (base / "model.safetensors").stat().st_size
    assert (written > weights) is merged


def test_checkpoints_that_lie_there_together_are_counted() -> None:
    config = TrainConfig(steps=100)
    config.checkpoint.every, config.checkpoint.keep = 10, 2
    config.rollout.save = SaveRollouts.none
    assert predicted_need(config, 1000, measured=False).checkpoints == 3  # two kept, one being written
    config.benchmark.name = "digit_chain"
    assert predicted_need(config, 1000, measured=False).checkpoints == 4  # and the best
    config.checkpoint.every = 0
    assert predicted_need(config, 1000, measured=False).checkpoints == 2  # only the last is ever saved
    config.rollout.save = SaveRollouts.all
    need = predicted_need(config, 1000, measured=False)
    assert need.rollouts == 100 * 32 * 16 * 2048 * 62  # steps x prompts x rollouts x tokens x bytes
    assert need.total == 2 * 1000 + need.rollouts + need.rows


def test_only_a_disk_without_room_for_one_checkpoint_is_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    fits, tight, too_large = free // 10, free // 2, 2 * free
    assert check_space(tmp_path, DiskNeed(fits, 3, 0, 0), overwrite=False) is None
    warning = check_space(tmp_path, DiskNeed(tight, 3, 0, 0), overwrite=False)
    assert warning is not None
    assert f"3 checkpoints of {tight:,}" in warning
    with pytest.raises(ConfigError) as caught:
        check_space(tmp_path, DiskNeed(too_large, 3, 0, 0), overwrite=False)
    assert f"a checkpoint needs about {too_large:,} bytes" in caught.value.problems[0].message
