"""The needs of a gating before credit can be computed: a reference, the whole batch, a scoring pass of its own.

Each rule is stated here alone. The checks and the plan ask it before torch is imported, training asks it in each step.
"""

from __future__ import annotations

from dgpo_cli.config.groups import AlgoConfig, GatingConfig, Normalizer, ScorePolicy, Sign, Signal
from dgpo_cli.core.signals import MEASURED_FROM_REFERENCE, SIGNALS


def shapes_credit(gating: GatingConfig) -> bool:
    """Whether tokens can get different credit at all. If not, no other setting of the gating counts."""
    return gating.signal is not Signal.none


def follows_reference(signal: Signal) -> bool:
    """Whether the signal itself is measured from a reference."""
    return signal is not Signal.none and SIGNALS[signal.value].measured_from_reference


def reads_answer(gating: GatingConfig) -> bool:
    """Whether credit reads the right answer: an oracle, an upper bound on what credit can do and no method."""
    return shapes_credit(gating) and SIGNALS[gating.signal.value].reads_answer


def masks_tokens(gating: GatingConfig) -> bool:
    """Whether tokens are chosen or left out, all chosen ones weighing alike."""
    return gating.top_fraction is not None or gating.band is not None


def needs_advantages(gating: GatingConfig) -> bool:
    """Whether a rollout's advantage decides about the credit of its tokens, beside multiplying it."""
    return shapes_credit(gating) and (gating.sign is not Sign.all or gating.times_advantage)


def gates_noise(gating: GatingConfig) -> bool:
    """Whether the mean distance to the reference is held against its numerical floor."""
    return shapes_credit(gating) and gating.noise_gate


def needed_fields(gating: GatingConfig) -> dict[str, str]:
    """The fields of `core.credit.TokenSignals` that credit is computed from, each with the setting that needs it."""
    if not shapes_credit(gating):
        return {}
    needed: dict[str, str] = {}
    if gates_noise(gating):
        needed["hellinger"] = "gating.noise_gate"
    if gating.entropy_exponent:
        needed["entropy"] = "gating.entropy_exponent"
    name = gating.signal.value
    return needed | dict.fromkeys(SIGNALS[name].reads, f"gating.signal={name}")


def needed_from_reference(gating: GatingConfig) -> dict[str, str]:
    """Those of `needed_fields` that are there only if a reference was scored; empty if credit needs none."""
    return {name: reason for name, reason in needed_fields(gating).items() if name in MEASURED_FROM_REFERENCE}


def needs_reference(algo: AlgoConfig, gating: GatingConfig) -> bool:
    """Whether training runs a reference: for credit or for the KL penalty. Otherwise it costs memory for nothing."""
    return algo.kl_coef > 0 or bool(needed_from_reference(gating))


def needs_whole_batch(gating: GatingConfig) -> bool:
    """Whether a token's credit depends on rollouts other than its own.

    The noise gate averages the distance over the batch, `saturate` takes a percentile of it, and a hard mask shares
    the credit of the tokens that it leaves out over all the others.
    """
    over_batch = gating.noise_gate or gating.normalizer is Normalizer.saturate or masks_tokens(gating)
    return shapes_credit(gating) and over_batch


def scores_each_update(gating: GatingConfig, *, updates: int) -> bool:
    """Whether every update of a step gets credit by the policy as it is then.

    `updates`: minibatches times epochs. Before the only update of a step, the policy is still the one that sampled.
    """
    return updates > 1 and shapes_credit(gating) and gating.score_policy is ScorePolicy.current


def scores_first(gating: GatingConfig, *, updates: int, micro_batches: int) -> bool:
    """Whether old log-probs and signals take a pass of their own before the updates.

    If not, the training pass gives them itself. It cannot if a second update follows, for that one's policy has moved.
    And if credit needs the whole batch, it can only if one micro-batch holds the batch: of several, the first would be
    trained before the last is known.

    `updates`: minibatches times epochs. `micro_batches`: into how many the batch is cut, over all processes.
    """
    return updates > 1 or (needs_whole_batch(gating) and micro_batches != 1)
