"""The numbers that say how much credit moved, by hand."""

from __future__ import annotations

import pytest
import torch

from dgpo_cli.core import diagnostics


def test_uniform_credit_has_share_one_and_gini_zero() -> None:
    spread = diagnostics.credit_spread([torch.ones(7)])
    assert spread["credit/ess"] == pytest.approx(1.0)
    assert spread["credit/gini"] == pytest.approx(0.0)
    assert spread["credit/top20"] == pytest.approx(0.2)


def test_all_credit_on_one_of_five() -> None:
    spread = diagnostics.credit_spread([torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0])])
    assert spread["credit/ess"] == pytest.approx(0.2)
    assert spread["credit/gini"] == pytest.approx(0.8)
    assert spread["credit/top20"] == pytest.approx(1.0)


def test_a_part_of_a_token_counts_in_part() -> None:
    # T = 3: a fifth is 0.6 of a token; the largest holds 1.5 of 3
    spread = diagnostics.credit_spread([torch.tensor([1.5, 1.0, 0.5])])
    assert spread["credit/top20"] == pytest.approx(0.6 * 1.5 / 3)


def test_no_credit_at_all_is_no_spread() -> None:
    spread = diagnostics.credit_spread([torch.zeros(4)])
    assert (spread["credit/ess"], spread["credit/gini"]) == (0.0, 0.0)
    assert spread["credit/top20"] == pytest.approx(0.2)


def test_rollouts_of_unlike_lengths_are_spread_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    rows = [torch.rand(count, generator=generator) * 2 for count in (1, 4, 9, 9, 31)]
    alone = [diagnostics.credit_spread([row]) for row in rows]
    together = diagnostics.credit_spread(rows)
    for name in ("credit/ess", "credit/gini", "credit/top20"):
        assert together[name] == pytest.approx(sum(one[name] for one in alone) / len(rows), rel=1e-12)


def test_quantile_agrees_with_torch() -> None:
    values = torch.rand(101, generator=torch.Generator().manual_seed(0))
    for q in (0.0, 0.33, 0.8, 1.0):
        assert diagnostics.quantile(values, q) == pytest.approx(float(torch.quantile(values, q)), abs=1e-6)


def test_correlation_of_a_constant_is_unknown() -> None:
    assert diagnostics.correlation(torch.ones(4), torch.rand(4)) is None
    assert diagnostics.correlation(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -3.0])) == pytest.approx(-1.0)


def test_cells_share_out_all_tokens_and_all_credit() -> None:
    generator = torch.Generator().manual_seed(1)
    distance, entropy, credit = (torch.rand(200, generator=generator) for _ in range(3))
    positive = torch.rand(200, generator=generator) > 0.5
    shares = diagnostics.cell_shares(distance, entropy, credit, positive)
    assert len(shares) == 16
    for kind in ("tokens_pos", "tokens_neg", "credit_pos", "credit_neg"):
        assert sum(value for name, value in shares.items() if name.endswith(kind)) == pytest.approx(1.0)


def test_credit_spread_leaves_out_rollouts_without_tokens() -> None:
    spread = diagnostics.credit_spread([torch.tensor([0.5, 1.5]), torch.zeros(0)])
    # ess = 4 / (2 * 2.5); std of (0.5, 1.5) = 0.5
    assert spread["credit/ess"] == pytest.approx(0.8)
    assert spread["credit/std"] == pytest.approx(0.5)
    assert spread["credit/max"] == pytest.approx(1.5)
    assert diagnostics.credit_spread([]) == {}


def test_positions_go_from_zero_to_one_in_each_rollout() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    positions = diagnostics.relative_positions(mask)
    assert positions[0].tolist() == [0.0, 0.5, 1.0]
    assert positions[1, 0] == 0.0
