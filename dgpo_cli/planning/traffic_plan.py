"""Bytes that processes bring each other in a step, by the kinds of traffic.py: what `comm/*_bytes` will say.

Counted as there: what arrives in all processes together, for completions of full length. A step without a save; one
checkpoint's weights stand beside it. Flags and orders, which are small, are left out.
"""

from __future__ import annotations

import math

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.gating_needs import scores_each_update, scores_first
from dgpo_cli.planning.architecture import FLOAT, Architecture
from dgpo_cli.planning.batches import rollouts_a_step, updates_a_step
from dgpo_cli.planning.layout import Layout
from dgpo_cli.planning.memory import Batch, Setting, trained_parameters

ID_BYTES, LOGPROB_BYTES, TEXT_BYTES = 4, 8, 4  # of a token on its way; its text is taken to be so long


def planned_traffic(
    config: TrainConfig, model: Architecture, setting: Setting, layout: Layout, batch: Batch, prompt: int
) -> dict[str, int]:
    """Bytes by kind; empty for a process alone."""
    others = layout.processes - 1
    if not others:
        return {}
    passes = _Passes(config, setting, layout, batch)
    tokens = rollouts_a_step(config) * config.rollout.max_completion_tokens
    found = {"weights": 0, "heads": 0, "gradients": 0}
    if setting.sharded:
        found = _of_shards(config, model, setting, passes)
    elif trained_parameters(model, setting):
        found["gradients"] = 2 * FLOAT * trained_parameters(model, setting) * updates_a_step(config)
    drawn = (ID_BYTES + LOGPROB_BYTES + TEXT_BYTES) * tokens if config.engine.name != "vllm" else 0
    trained = (ID_BYTES + (LOGPROB_BYTES if config.rollout.lag else 0)) * tokens
    trained += ID_BYTES * config.rollout.prompts_per_step * prompt
    numbers = 3 if setting.reference == "none" else 5  # a token's
    to_main = FLOAT * tokens * (0 if passes.scores_first else numbers + 2)
    to_main += FLOAT * tokens * config.optim.epochs * (config.algo.kl_coef > 0)
    to_all = FLOAT * tokens * numbers * passes.scorings
    saved = 0 if not setting.sharded or setting.adapters.rank else setting.weight_bytes * model.parameters
    shared = layout.processes
    return {
        **{kind: count * others for kind, count in found.items()},
        "sequences": _of_sequences(model, setting, layout, batch, passes),
        "samples": drawn * others // shared + trained * others,
        "signals": to_main * others // shared + to_all * others,
        "checkpoint": saved * others // shared,
    }


class _Passes:
    """How often a step's micro-batches go through the models."""

    def __init__(self, config: TrainConfig, setting: Setting, layout: Layout, batch: Batch) -> None:
        updates = updates_a_step(config)
        everyones = batch.micro_batches * layout.teams
        self.updates = updates
        self.scores_first = scores_first(config.gating, updates=updates, micro_batches=everyones)
        again = updates if scores_each_update(config.gating, updates=updates) else 0
        minibatches = config.optim.minibatches
        self.trained = batch.micro_batches * updates
        self.scored = batch.micro_batches * (minibatches * self.scores_first + again)
        self.scorings = self.scores_first + again  # passes over a batch or a minibatch
        has_reference = setting.reference != "none"
        self.reference = has_reference * (batch.micro_batches * minibatches if self.scores_first else self.trained)
        self.of_reference = has_reference * (1 if self.scores_first else updates)


def _of_sequences(model: Architecture, setting: Setting, layout: Layout, batch: Batch, passes: _Passes) -> int:
    """What all teams exchange: of each layer queries, keys and values, and outputs."""
    others = layout.sequence_parallel - 1
    copies = max(1, layout.sequence_parallel // model.kv_heads)  # of fewer heads of keys than processes
    widths = 2 * model.query_width + 2 * model.kv_width * copies
    backwards = 3 if setting.checkpointing else 2  # forward, backward, and the forward that is computed again
    times = backwards * passes.trained + passes.scored + passes.reference
    a_pass = setting.compute_bytes * model.layers * widths * batch.tokens * others * layout.teams
    return a_pass * times


def _of_shards(config: TrainConfig, model: Architecture, setting: Setting, passes: _Passes) -> dict[str, int]:
    """What one process gets of a step: layers for each pass and each backward, heads, and sums of gradients."""
    element, head = setting.compute_bytes, model.embedding_parameters
    body = model.parameters - (0 if model.tied_embeddings else head)
    draws = 0
    if config.engine.name != "vllm":
        units = math.ceil(rollouts_a_step(config) / config.engine.batch_size / setting.shards)
        draws = 1 if setting.generates_gathered else units * config.rollout.max_completion_tokens
    pushed = 0 if draws else setting.weight_bytes * model.parameters
    layers = draws + 2 * passes.trained + passes.scored + passes.reference
    policy = passes.updates + passes.scorings if setting.offloaded else passes.trained + passes.scored
    reference_rests = setting.offloaded or setting.reference_offloaded
    of_reference = passes.of_reference if reference_rests else passes.reference
    trained = model.adapter_parameters(setting.adapters) if setting.adapters.rank else body
    heads = 0 if setting.adapters.rank else element * head
    return {
        "weights": element * body * layers + pushed,
        "heads": element * head * (min(draws, 1) + policy + of_reference),
        "gradients": passes.trained * (FLOAT * trained + heads),
    }
