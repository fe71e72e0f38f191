"""The plan's tables."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from dgpo_cli.commands.plan import plan_of
from dgpo_cli.config.compose import compose
from dgpo_cli.planning.remarks import size
from dgpo_cli.reporting.plan_view import plan_tables, probe_tables


def shown(tables: Iterable[Table]) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


def test_sizes_have_three_figures_at_most_and_a_unit() -> None:
    assert [size(count) for count in (0, 1023, 1536, 150 * 2**20, 2**40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "150 MiB",
        "1.0 TiB",
    ]


def test_a_plan_shows_parts_by_phase_with_the_peak_and_its_warnings() -> None:
    plan = plan_of(compose("train", ["model=qwen32b"]))
    text = shown(plan_tables(plan))
    assert "32,763,876,352 parameters" in text
    assert "moments float32" in text
    assert text.count("(peak)") == 1
    assert "does not fit" in text


def test_a_gpu_that_trainer_and_server_share_is_shown_at_both_peaks() -> None:
    plan = plan_of(compose("train", ["model=qwen7b", "engine=vllm", "engine.colocated=true"]))
    text = " ".join(" ".join(shown(plan_tables(plan)).replace("│", " ").split()).split())
    assert "an allowance of 4.0 GiB of the sleeping server" in text
    assert "86.6 GiB of 80 GB (15.3 GiB of the trainer, 71.2 GiB of the server" in text


def test_a_probe_shows_predicted_beside_measured() -> None:
    plan = plan_of(compose("train", []))
    record = {
        "predicted": {"weights": 2**20, "cache": 0},
        "predicted_bytes": 2**20,
        "measured_bytes": 2**21,
        "predicted_over_measured": 0.5,
        "tokens": 100,
        "seconds": 2.0,
        "method": "counted",
    }
    lines = shown(probe_tables(plan, record)).splitlines()
    assert any(line.split("│")[1:4] == [" peak                ", "   1.0 MiB ", "  2.0 MiB "] for line in lines)
    assert not any("cache" in line for line in lines)
