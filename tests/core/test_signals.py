"""The table of signals: what each needs is what it takes, and everything that names signals names these."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
import torch

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.gating_needs import follows_reference
from dgpo_cli.config.gatings import gating_option
from dgpo_cli.config.groups import Control, GatingConfig, Signal
from dgpo_cli.core.credit import TokenSignals, gated_score
from dgpo_cli.core.signals import MEASURED_FROM_REFERENCE, READ_FROM_ANSWER, SIGNALS
from dgpo_cli.reporting.gating_rule import rule

FIELDS = {field.name for field in dataclasses.fields(TokenSignals)} - {"mask", "alternatives"}  # which no signal reads
NAMED = [signal for signal in Signal if signal is not Signal.none]


def test_the_option_and_its_help_name_the_signals_of_the_table() -> None:
    assert [signal.value for signal in NAMED] == [signal.name for signal in NAMED] == list(SIGNALS)
    meaning = catalogue.keys("train")["gating.signal"].meaning
    assert meaning == " | ".join(["none (uniform)", *SIGNALS])


def test_the_page_writes_each_signal_in_its_own_way() -> None:
    formulas = {signal: rule(GatingConfig(signal=signal, temperature=1.0)) for signal in NAMED}
    assert formulas == {signal: f"w = T softmax({SIGNALS[signal.value].symbol} / 1)" for signal in NAMED}
    assert len(set(formulas.values())) == len(SIGNALS)


@pytest.mark.parametrize("option", catalogue.options("gating"))
def test_an_option_follows_a_signal_of_the_table(option: str) -> None:
    signal = gating_option(option).signal
    assert signal is Signal.none or signal.value in SIGNALS


@pytest.mark.parametrize("signal", NAMED, ids=lambda signal: signal.name)
def test_a_signal_reads_the_fields_that_it_names_and_no_other(signal: Signal) -> None:
    reads = SIGNALS[signal.value].reads
    values: dict[str, Any] = {name: torch.rand(1, 3) * (-1 if "logprobs" in name else 1) for name in FIELDS}
    mask = torch.ones(1, 3, dtype=torch.bool)

    def score(**changed: torch.Tensor | None) -> torch.Tensor:
        signals = TokenSignals(mask, **(values | changed))
        return gated_score(signals, signal=signal.value, entropy_exponent=0.0, vocabulary_size=9)

    assert set(reads) <= FIELDS
    for name in FIELDS:
        moves = not torch.equal(score(), score(**{name: values[name] / 2}))
        assert moves is (name in reads)


@pytest.mark.parametrize("signal", NAMED, ids=lambda signal: signal.name)
def test_a_signal_cannot_be_scored_without_a_reference_exactly_if_it_follows_one(signal: Signal) -> None:
    alone = TokenSignals(torch.ones(1, 2, dtype=torch.bool), -torch.rand(1, 2), torch.rand(1, 2))
    optional = {field.name for field in dataclasses.fields(TokenSignals) if field.default is None} & FIELDS
    assert optional == MEASURED_FROM_REFERENCE | READ_FROM_ANSWER | {"grad_norm"}  # which earlier files lack
    if follows_reference(signal):
        with pytest.raises(ValueError, match="measured from a reference"):
            gated_score(alone, signal=signal.value, entropy_exponent=0.0, vocabulary_size=9)
        return
    if signal in (Signal.grad_norm, Signal.oracle_first_error):
        [field] = SIGNALS[signal.value].reads
        alone = dataclasses.replace(alone, **{field: torch.rand(1, 2)})
    gated_score(alone, signal=signal.value, entropy_exponent=0.0, vocabulary_size=9)


def test_the_page_writes_each_published_rule_as_a_formula() -> None:
    names = ("proximal", "rsi", "divergence_sigmoid", "rarity", "damping", "gmts", "gmts_exact")
    assert {name: rule(gating_option(name)) for name in names} == {
        "proximal": "w = T softmax((H in nats against the 101 tokens around it) / 1); only where A > 0, else 1",
        "rsi": "w = n / n_kept if 0.1 ≤ −log p / H ≤ 3, else 0",
        "divergence_sigmoid": "w = (1 + 0.3 (σ(k3 / 0.1) − ½)) / mean",
        "rarity": "w = (1 + 0.2 (1 − p)) / mean",
        "damping": "w = (1 + -0.1 (1 − p)) / mean",
        "gmts": "w = 1 / share on the top 20% by H in nats · |ρ A|, else 0",
        "gmts_exact": "w = 1 / share on the top 20% by |∇| · |ρ A|, else 0",
    }
    assert rule(replace(gating_option("paper"), control=Control.invert)).endswith("; control: inverted")
