"""The bytes that a run will write, held against the free ones of the disk, before its first step.

Only a disk without room for a single checkpoint is refused: checkpoints are dropped, and room may be made meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import SaveRollouts
from dgpo_cli.disk import free_bytes
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.planning import disk
from dgpo_cli.planning.pieces import moment_bytes

TOKENIZER = 128  # bytes an entry of the vocabulary
SMALL = 1 << 17  # configuration, counters and manifest of a checkpoint
TOKEN = 62  # bytes of a stored token: its id, its text, its log-prob by trainer and by engine
MEASURED_TOKEN = 162  # and its log-prob under the reference, entropy, distance, score and credit
AHEAD_TOKEN = 24  # bytes of a token drawn ahead (collected_file.py): its id, log-prob and text
AHEAD_ROLLOUT = 640  # and of its rollout: verdict, rewards, and its share of those that were sampled for the step
ROW = 2500  # bytes of a step in metrics.jsonl


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a run takes, at most."""

    checkpoint: int
    checkpoints: int  # that lie there together: kept, best, and the one being written
    rollouts: int
    rows: int

    @property
    def total(self) -> int:
        return self.checkpoint * self.checkpoints + self.rollouts + self.rows


def checkpoint_bytes(
    model: LanguageModel, renewed_reference: LanguageModel | None, *, merged: bool = False, states: str = "float32"
) -> int:
    """Bytes of one checkpoint: the weights that are trained, their optimizer state, a reference that is renewed.

    `merged`: and a full model, the adapter added into it. states: of the optimizer, float32 | 8bit.
    """
    adapted = model.adapter is not None
    trained = [weight for weight in model.model.parameters() if weight.requires_grad]
    weights = disk.checkpoint_bytes(
        own=_count(model.frozen_weights() if adapted else model.model.parameters()),
        own_bytes=model.weights_dtype.itemsize,  # frozen ones may be held in another dtype than they are saved in
        moments=sum(moment_bytes(weight.numel(), states) for weight in trained),
        adapter=_count(trained) if adapted else 0,
        merged=merged,
        renewed=0 if renewed_reference is None else _weight_bytes(renewed_reference),
    )
    tokenizers = 1 + (adapted and merged) + (renewed_reference is not None)  # each folder has its own
    return weights + tokenizers * model.vocabulary_size * TOKENIZER + SMALL


def _weight_bytes(reference: LanguageModel) -> int:
    """Of a second adapter in the policy, or of a model of its own."""
    if reference.adapter is not None:
        return sum(weight.numel() * weight.element_size() for weight in reference.adapter.parameters())
    return _count(reference.model.parameters()) * reference.weights_dtype.itemsize


def _count(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def predicted_need(config: TrainConfig, checkpoint: int, *, measured: bool) -> DiskNeed:
    """The bytes that a run takes. `measured`: rollouts are stored with the numbers of a reference.

    `checkpoint`: bytes of one, without what rollout.lag draws ahead.
    """
    stored = {SaveRollouts.all: config.steps, SaveRollouts.some: 2 + config.steps // 10, SaveRollouts.none: 0}
    rollout = config.rollout
    rollouts = rollout.prompts_per_step * rollout.group_size
    tokens = rollouts * rollout.max_completion_tokens
    ahead = tokens * AHEAD_TOKEN + rollouts * AHEAD_ROLLOUT if rollout.lag else 0
    return DiskNeed(
        checkpoint + ahead,
        disk.kept_checkpoints(config) + 1,
        stored[rollout.save] * tokens * (MEASURED_TOKEN if measured else TOKEN),
        config.steps * ROW,
    )


def check_space(folder: Path, need: DiskNeed, *, overwrite: bool) -> str | None:
    """A warning if the disk may fill up during the run, or None. `overwrite`: the folder's files will be deleted.

    Raises:
        ConfigError: not even one checkpoint fits.
    """
    free = free_bytes(folder)
    if free is None:
        return None
    held = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    if overwrite:
        free, held = free + held, 0
    if free < need.checkpoint:
        raise ConfigError(
            f"{folder}: a checkpoint needs about {need.checkpoint:,} bytes, {free:,} are free there",
            "make room, or hydra.run.dir=FOLDER on a larger disk",
        )
    if free >= need.total - held:
        return None
    return (
        f"{folder} may need {need.total:,} bytes in all ({need.checkpoints} checkpoints of {need.checkpoint:,}, one of "
        f"them while it is written, and at most {need.rollouts:,} for rollouts), {free:,} are free there: "
        "checkpoint.keep, checkpoint.keep_best and rollout.save decide"
    )
