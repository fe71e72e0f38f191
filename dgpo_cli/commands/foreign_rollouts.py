"""`dgpo rollout rollouts=FILE` of another trainer: what the file holds, or with model.path= scored by that model."""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.commands.scored_records import Worth
from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.gatings import typed_keys
from dgpo_cli.config.rollout_files import is_of_others, names_model
from dgpo_cli.core.advantages import advantages_of_groups
from dgpo_cli.errors import DataError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.records.foreign import ForeignFile, read_foreign
from dgpo_cli.records.retokenised import places, retokenised
from dgpo_cli.records.stored_rollouts import StoredRollouts, rollouts_at_hand
from dgpo_cli.terminal import say
from dgpo_cli.types import Rollout, Verdict


def scores_others(config: RolloutConfig) -> bool:
    """Whether rollouts= is another trainer's file, and a model was named to score it."""
    return is_of_others(config.rollouts) and names_model(typed_keys())


def to_be_scored(config: RolloutConfig, model: LanguageModel) -> tuple[list[Rollout], Worth]:
    """The file's rollouts in the model's tokens. It says what was read, and what was left out.

    Raises:
        DataError: as `read_foreign` and `retokenised` do.
    """
    foreign = read_foreign(Path(str(config.rollouts)))
    found = retokenised(foreign, model)
    say(_summary(foreign))
    for note in found.notes:
        say(note)
    kept, advantages = [foreign.rollouts[row] for row in found.rows], _advantages(config, foreign)
    worth = Worth(
        [Verdict(one.reward or 0.0, None, parts=one.parts or None) for one in kept],
        [one.reward for one in kept],
        [advantages[row] for row in found.rows],
        graded=False,
    )
    return found.rollouts, worth


def unscored(config: RolloutConfig) -> StoredRollouts:
    """The file as it stands: a completion's whole text is its one token, and there are no signals.

    Raises:
        DataError: as `read_foreign` does; or export= is asked for, which needs tokens.
    """
    foreign = read_foreign(Path(str(config.rollouts)))
    if config.export is not None:
        raise DataError(f"export: {foreign.source} has no tokens without a model", "model.path=MODEL scores its texts")
    say(f"{_summary(foreign)}; no credit without a model: model.path=MODEL reference.path=MODEL scores them")
    for reason, count in foreign.left_out.items():
        say(f"note: {foreign.source}: left out: {count} {reason}")
    advantages = _advantages(config, foreign)
    records = [
        {
            "prompt_id": prompt_id,
            "sample": sample,
            "prompt": one.prompt_text,
            "completion": one.completion,
            "gold": one.gold,
            "reward": one.reward,
            "advantage": advantages[row],
            "finish_reason": one.finish_reason,
            "reward_parts": one.parts,
            "tokens": [one.completion],
            "logprobs": None,
        }
        for row, (one, (prompt_id, _, sample)) in enumerate(zip(foreign.rollouts, places(foreign), strict=True))
    ]
    return rollouts_at_hand(records, foreign.source)


def _advantages(config: RolloutConfig, foreign: ForeignFile) -> list[float | None]:
    """Those of the file, which are what was trained on; if it has none, by algo.scale_rewards from its rewards."""
    if _has_advantages(foreign):
        return [one.advantage for one in foreign.rollouts]
    rewards = [one.reward for one in foreign.rollouts]
    return advantages_of_groups(rewards, foreign.groups(), scale=config.algo.scale_rewards.name)


def _has_advantages(foreign: ForeignFile) -> bool:
    return any(one.advantage is not None for one in foreign.rollouts)


def _summary(foreign: ForeignFile) -> str:
    count, rewarded = len(foreign.rollouts), sum(one.reward is not None for one in foreign.rollouts)
    source = "those of the file" if _has_advantages(foreign) else "computed from the rewards"
    return (
        f"{foreign.source}: {count} rollouts of {len(foreign.groups())} groups, written by {foreign.trainer}; "
        f"{rewarded} have a reward; advantages: {source if rewarded or _has_advantages(foreign) else 'none'}"
    )
