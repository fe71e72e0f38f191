"""Rollouts at hand -> their records: signals always, and credit if what its gating needs is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.commands.gating_choice import needs_of_reference
from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.gating_needs import needs_advantages, reads_answer
from dgpo_cli.config.gatings import gatings_by_label, hydra_config_dirs
from dgpo_cli.core.credit import TokenSignals, marked
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.evidence.first_errors import FirstErrors
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.noise_floor import measure_noise_floor
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import Policy
from dgpo_cli.models.reference import load_reference
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.records.rollout_records import rollout_records
from dgpo_cli.records.token_spelling import token_speller
from dgpo_cli.types import Rollout, Verdict


@dataclass(frozen=True)
class Worth:
    """Verdict, reward and advantage of each rollout; None for what nothing graded, and for a group of one."""

    verdicts: list[Verdict]
    rewards: Sequence[float | None]
    advantages: Sequence[float | None]
    graded: bool  # by a grader here, so that golds are known; what a file says of its rewards is no verdict


def scored_records(
    config: RolloutConfig, policy: Policy, placement: Placement, rollouts: list[Rollout], worth: Worth
) -> list[dict[str, Any]]:
    """One pass over each model, and one more for the noise floor if there is a reference.

    Raises:
        DgpoError: as `load_reference` does.
    """
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=config.rollout.max_completion_tokens)
    model, reference = policy.model, _reference(config, policy.model, placement)
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    temperature, tokens = config.rollout.temperature or 1.0, config.tokens_per_microbatch
    signals = score_rollouts(
        model,
        reference,
        rollouts,
        lengths,
        temperature=temperature,
        tokens=tokens,
        alternatives=config.rollout.alternatives,
    )
    gatings = gatings_by_label(config.gating, config.gatings or [], hydra_config_dirs())
    if worth.graded and any(map(reads_answer, gatings.values())):
        signals = _informed(policy, rollouts, worth.verdicts, signals)
    seeds = [
        derive_seed("control", config.seed, 0, rollout.request.draw, rollout.request.sample) for rollout in rollouts
    ]
    floor, credit = None, None
    if reference is not None:
        floor = measure_noise_floor(model, rollouts, lengths, temperature=temperature, tokens=tokens)
    graded = None not in worth.advantages or not needs_advantages(config.gating)
    if graded and (reference is not None or not needs_of_reference(config.gating)):
        credit = algorithm.credit(
            signals,
            advantages=torch.tensor([advantage or 0.0 for advantage in worth.advantages]),
            vocabulary_size=model.vocabulary_size,
            noise_floor=floor or 0.0,
            control_seeds=seeds,
        )
    return rollout_records(
        rollouts,
        worth.verdicts,
        worth.rewards,
        worth.advantages,
        signals,
        credit,
        spell=token_speller(policy.model.tokenizer),
        vocabulary_size=policy.model.vocabulary_size,
        noise_floor=floor,
        control_seeds=seeds,
        alternatives=signals.alternatives,
    )


def _informed(policy: Policy, rollouts: list[Rollout], verdicts: list[Verdict], signals: TokenSignals) -> TokenSignals:
    """With what an oracle knows."""
    places = FirstErrors(policy.model.tokenizer, policy.stop_ids).places(rollouts, verdicts)
    return replace(signals, first_error=marked(places, signals.mask))


def _reference(config: RolloutConfig, policy: LanguageModel, placement: Placement) -> LanguageModel | None:
    if config.reference.name == "none":
        return None
    return load_reference(config.reference, config.model, policy, placement)
