"""The disk before the first step: what a run will need, and what is refused or said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from collected_factory import COLLECTED, request, rewards
from model_factory import save_random_model

from dgpo_cli.config.commands import OptimConfig, TrainConfig
from dgpo_cli.config.groups import OptimizerStates, SaveRollouts, Signal
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.frozen import renewable_reference
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import add_adapter
from dgpo_cli.planning.architecture import from_json
from dgpo_cli.planning.disk import planned_disk
from dgpo_cli.planning.layout import Machine, layout_of, setting_of
from dgpo_cli.training.checkpoint import Checkpoints, RunState
from dgpo_cli.training.collected_file import save_collected
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.space import SMALL, TOKENIZER, DiskNeed, check_space, checkpoint_bytes, predicted_need
from dgpo_cli.types import Rollout, Verdict

WEIGHTS = ("model", "adapter_model", "optimizer")  # beginnings of the names of files with weights and moments
TABLES = 1 << 16  # what the codes of 8 bits stand for, of every tensor
HEADERS = 1 << 15  # bytes of names and shapes that stand before the numbers in such files


def files_of(folder: Path, *names: str) -> int:
    """Bytes of the folder's files, or of those so named alone."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if not names or file.name.startswith(names))


def updated(model: LanguageModel, states: str = "float32") -> Optimizer:
    """The optimizer after an update of every weight, so that it has moments of each."""
    optimizer = Optimizer(model.model, OptimConfig(states=OptimizerStates[states]))
    for parameter in optimizer.parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.update(1e-3)
    return optimizer


def planned(base: Path, *, rank: int = 0, merge: bool = False, renews: bool = False, states: str = "float32") -> int:
    """What the plan of a run says of a checkpoint, from config.json alone."""
    config = TrainConfig()
    config.model.lora.rank, config.model.lora.merge = rank, merge
    config.optim.states = OptimizerStates[states]
    config.gating.signal = Signal.hellinger
    config.reference.refresh_every = int(renews)
    setting = setting_of(config, layout_of(config, Machine()), trains=True)
    return planned_disk(config, from_json(base / "config.json"), setting)["checkpoint"]


@pytest.mark.parametrize("vocabulary", [512, 20_000])
@pytest.mark.parametrize("renews", [False, True])
def test_a_checkpoint_takes_what_was_predicted_and_planned(tmp_path: Path, vocabulary: int, renews: bool) -> None:
    base = save_random_model(tmp_path / "model", vocab_size=vocabulary, hidden_size=64)
    model = load_model(str(base))
    reference = model if renews else None
    path = Checkpoints(tmp_path, keep=1).save(RunState(step=1), model, updated(model), reference)
    written, predicted = files_of(path), checkpoint_bytes(model, reference)
    assert written <= predicted <= 1.5 * written + (1 << 18)
    weights = files_of(path, *WEIGHTS)
    assert weights == pytest.approx(planned(base, renews=renews), rel=0.002, abs=HEADERS)
    assert predicted - planned(base, renews=renews) == (1 + renews) * vocabulary * TOKENIZER + SMALL


def test_a_checkpoint_holds_moments_of_8_bits_in_the_bytes_that_the_plan_counts(tmp_path: Path) -> None:
    base = save_random_model(tmp_path / "model", vocab_size=20_000, hidden_size=64)
    model = load_model(str(base))
    path = Checkpoints(tmp_path, keep=1).save(RunState(step=1), model, updated(model, "8bit"), None)
    weights = files_of(path, *WEIGHTS)
    assert weights == pytest.approx(planned(base, states="8bit"), rel=0.002, abs=HEADERS + TABLES)
    assert planned(base, states="8bit") < 0.55 * planned(base)  # 6 bytes a weight, and some, in place of 12
    predicted = checkpoint_bytes(model, None, states="8bit")
    assert predicted - planned(base, states="8bit") == 20_000 * TOKENIZER + SMALL


@pytest.mark.parametrize(("merged", "renews"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_checkpoint_of_an_adapter_takes_what_was_predicted_and_planned(
    tmp_path: Path, merged: bool, renews: bool
) -> None:
    base = save_random_model(tmp_path / "model", hidden_size=256)
    model = load_model(str(base))
    model.adapter = add_adapter(
        model.model, rank=8, alpha=None, target_modules=None, base=str(base), revision=None, seed=0
    )
    reference = renewable_reference(model, None) if renews else None
    optimizer = updated(model)
    path = Checkpoints(tmp_path, keep=1, merge_adapter=merged).save(RunState(step=1), model, optimizer, reference)
    written, predicted = files_of(path), checkpoint_bytes(model, reference, merged=merged)
    assert written <= predicted <= 1.5 * written + (1 << 18)
    plan = planned(base, rank=8, merge=merged, renews=renews)
    assert files_of(path, *WEIGHTS) == pytest.approx(plan, rel=0.002, abs=HEADERS)
    assert predicted - plan == (1 + merged + renews) * model.vocabulary_size * TOKENIZER + SMALL
    assert (written > files_of(base, "model.safetensors")) is merged


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


def test_rollouts_drawn_ahead_are_part_of_each_checkpoint(tmp_path: Path) -> None:
    config = TrainConfig(steps=100)
    config.rollout.prompts_per_step, config.rollout.group_size, config.rollout.max_completion_tokens = 8, 4, 256
    assert predicted_need(config, 1000, measured=False).checkpoint == 1000
    config.rollout.lag = 1
    text = "1234 " * 256  # about as long as text is: five characters a token
    rollouts = [
        Rollout(request(2, draw, sample), (3,) * 256, text, "length", logprobs=(-0.5,) * 256, policy_step=0)
        for draw in range(8)
        for sample in range(4)
    ]
    verdicts = [Verdict(0.0, False, error="no_answer", parts={"form": 1 / 3, "answer": 1 / 7})] * 32
    drawn = rewards(*[1 / 3] * 32)
    collected = replace(COLLECTED, rollouts=rollouts, verdicts=verdicts, rewards=drawn, sampled=drawn)
    save_collected(replace(collected, sampled_verdicts=verdicts, sampled_lengths=[256] * 32), 2, tmp_path)
    written = files_of(tmp_path)
    assert written <= predicted_need(config, 1000, measured=False).checkpoint - 1000 <= 3 * written


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
