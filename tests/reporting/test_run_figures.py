"""How steady each side's updates were and where its credit went, from made-up metrics with hand-worked numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_factory import training

from dgpo_cli.reporting.run_figures import cell_rows, figure_rows, figure_tables, run_figures
from dgpo_cli.reporting.runs import find_runs
from dgpo_cli.reporting.sides import sides

CELLS = ("high_d_high_h", "high_d_low_h", "low_d_high_h", "low_d_low_h")


def rows(norms: list[float], **more: list[Any]) -> list[dict[str, Any]]:
    columns = {"grad_norm": norms, **{key.replace("__", "/"): values for key, values in more.items()}}
    return [{"step": step + 1} | {key: own[step] for key, own in columns.items()} for step in range(len(norms))]


def figures_of(tmp_path: Path, *of_runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [training(tmp_path / str(seed), [1], seed=seed, rows=own) for seed, own in enumerate(of_runs)]
    return run_figures(sides(find_runs(names)[0]))


def test_each_figure_is_one_number_a_run_with_its_interval_over_runs(tmp_path: Path) -> None:
    (record,) = figures_of(
        tmp_path,
        rows([1.0, 2.0, 3.0], kl__max=[0.1, 1.0, 0.5], hellinger__max=[0.1, 0.2, 0.3], credit__ess=[1.0, 0.9, 0.95]),
        rows([2.0, 2.0, 2.0], kl__max=[4.0, 0.0, 0.0], hellinger__max=[0.5, 0.1, 0.1], credit__ess=[1.0, 1.0, 0.8]),
    )
    figures = record["figures"]
    assert record["runs"] == 2
    assert figures["grad_norm_mean"] == {"value": 2.0, "ci95": None}  # both runs have 2
    assert figures["grad_norm_variation"]["value"] == pytest.approx((0.5 + 0.0) / 2)
    assert figures["kl_max"]["value"] == pytest.approx((1.0 * 4.0) ** 0.5)  # of the largest, geometric
    half = 12.7062 * 0.1  # t(0.975, 1) * (0.5 - 0.3) / sqrt(2) / sqrt(2)
    assert figures["hellinger_max"]["value"] == pytest.approx(0.4)
    assert figures["hellinger_max"]["ci95"] == pytest.approx([0.4 - half, 0.4 + half], abs=1e-4)
    assert figures["credit_ess_min"]["value"] == pytest.approx(0.85)
    assert figure_rows([record])[0][1:3] == ["gradient norm", "its variation"]


def test_steps_without_an_update_and_columns_of_nulls_are_left_out(tmp_path: Path) -> None:
    norms = rows([0.0, 1.0, 3.0], optim__updates=[0, 1, 1], kl__max=[None, None, None])
    (record,) = figures_of(tmp_path, norms)
    assert record["figures"]["grad_norm_mean"] == {"value": 2.0, "ci95": None}
    assert record["figures"]["kl_max"] is None
    assert record["cells"] is None
    assert "largest KL of a token, nats" not in figure_rows([record])[0]


def test_cells_say_how_many_times_their_share_of_the_credit_they_hold(tmp_path: Path) -> None:
    tokens = dict(zip(CELLS, (0.1, 0.1, 0.1, 0.7), strict=True))
    credit = dict(zip(CELLS, (0.2, 0.1, 0.1, 0.6), strict=True))
    own: dict[str, Any] = {f"cells/{cell}/tokens_pos": value for cell, value in tokens.items()}
    own |= {f"cells/{cell}/credit_pos": value for cell, value in credit.items()}
    (record,) = figures_of(tmp_path, [{"step": 1, "grad_norm": 1.0, **own}, {"step": 2, "grad_norm": 1.0, **own}])
    assert list(record["cells"]) == ["pos"]
    first = record["cells"]["pos"]["high_d_high_h"]
    assert (first["tokens"], first["credit"]) == pytest.approx((0.1, 0.2))
    assert first["factor"]["value"] == pytest.approx(2.0)
    assert cell_rows([record])[1][1:3] == ["A > 0", "10.0% x 2"]
    assert len(figure_tables([record])) == 2


def test_evaluations_alone_have_no_figures(tmp_path: Path) -> None:
    (record,) = figures_of(tmp_path, [{"step": 1, "loss": 0.1}])
    assert figure_rows([record]) == []
    assert figure_tables([]) == []
