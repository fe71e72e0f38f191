"""A gating as a formula, for pages."""

from __future__ import annotations

from dgpo_cli.config.gating_needs import masks_tokens
from dgpo_cli.config.groups import Control, Form, GatingConfig, Normalizer, Sign, Signal
from dgpo_cli.core.signals import SIGNALS

SIGNS = {Sign.positive: ">", Sign.negative: "<"}
CONTROLLED = {Control.permute: "permuted", Control.misplace: "misplaced", Control.invert: "inverted"}


def rule(gating: GatingConfig) -> str:
    """A gating as a formula."""
    if gating.signal is Signal.none:
        return "w = 1"
    kappa = gating.entropy_exponent
    score = SIGNALS[gating.signal.value].symbol + (
        f" · H^{kappa:g}" if kappa not in (0, 1) else " · H" if kappa else ""
    )
    if gating.times_advantage:
        score += " · |ρ A|"
    extras = (
        [f"clipped to [{gating.clip[0]:g}, {gating.clip[1]:g}]"] if gating.clip and not masks_tokens(gating) else []
    )
    extras += ["noise gate"] if gating.noise_gate and not masks_tokens(gating) else []
    extras += [f"only where A {SIGNS[gating.sign]} 0, else 1"] if gating.sign in SIGNS else []
    extras += [f"control: {CONTROLLED[gating.control]}"] if gating.control is not Control.none else []
    return "; ".join([_weights(gating, score), *extras])


def _weights(gating: GatingConfig, score: str) -> str:
    """The weights as a formula of the score."""
    if gating.top_fraction is not None:
        return f"w = 1 / share on the top {gating.top_fraction:.0%} by {score}, else 0"
    if gating.band is not None:
        return f"w = n / n_kept if {gating.band[0]:g} ≤ {score} ≤ {gating.band[1]:g}, else 0"
    score = {
        Normalizer.none: score,
        Normalizer.saturate: f"(s / (s + p80), s = {score})",
        Normalizer.rank: f"(rank of {score})",
        Normalizer.window: f"({score} against the {gating.window} tokens around it)",
    }[gating.normalizer]
    if gating.form is Form.sigmoid:
        return f"w = (1 + {gating.strength:g} (σ({score} / {gating.temperature:g}) − ½)) / mean"
    if gating.form is Form.linear:
        return f"w = (1 + {gating.strength:g} {score}) / mean"
    return f"w = T softmax({score} / {gating.temperature:g})"
