"""The plan's bytes between processes: by hand, and beside what runs of the bundled model have counted."""

from __future__ import annotations

import pytest

from dgpo_cli.bundled import bundled_path
from dgpo_cli.config.compose import compose
from dgpo_cli.planning.architecture import from_json
from dgpo_cli.planning.layout import Machine, layout_of, setting_of
from dgpo_cli.planning.memory import Batch
from dgpo_cli.planning.traffic_plan import planned_traffic

SETTINGS = ["strategy.device=cpu", "rollout.prompts_per_step=8", "benchmark=none"]


def planned(*overrides: str) -> dict[str, int]:
    """Of the bundled model, with two micro-batches a process in a step."""
    config = compose("train", [*SETTINGS, *overrides])
    layout = layout_of(config, Machine())
    batch = Batch(rows=1, width=1, counted=1, micro_batches=2)
    model = from_json(bundled_path("tiny") / "config.json")
    return planned_traffic(config, model, setting_of(config, layout, trains=True), layout, batch, prompt=32)


# What comm/*_bytes said of such steps (benchmarks/RESULTS.md): whole rows of shards are a little more.
COUNTED = {
    ("fsdp", 2): {"weights": 9_572_864, "heads": 256_000, "gradients": 2_837_504},
    ("fsdp", 4): {"weights": 28_718_592, "heads": 768_000, "gradients": 8_512_512},
    ("fsdp_offload", 2): {"weights": 9_572_864, "heads": 153_600, "gradients": 2_837_504},
    ("ddp", 4): {"weights": 0, "heads": 0, "gradients": 8_202_240},
}


@pytest.mark.parametrize(("strategy", "processes"), COUNTED)
def test_a_step_is_planned_as_it_was_counted(strategy: str, processes: int) -> None:
    found = planned(f"strategy={strategy}", f"strategy.num_processes={processes}")
    for kind, counted in COUNTED[strategy, processes].items():
        assert found[kind] == pytest.approx(counted, rel=0.012), kind


def test_completions_and_their_numbers_by_hand() -> None:
    found = planned("strategy=ddp", "strategy.num_processes=4")
    tokens = 8 * 8 * compose("train", SETTINGS).rollout.max_completion_tokens
    # 16 bytes a token from three of four processes to the main one; ids and prompts of 32 tokens to the three others.
    assert found["samples"] == 16 * tokens * 3 // 4 + (4 * tokens + 4 * 8 * 32) * 3
    # One pass gives the credit: five numbers a token with a reference, its weight and score, to the main process.
    assert found["signals"] == 4 * 7 * tokens * 3 // 4
    twice = planned("strategy=ddp", "strategy.num_processes=4", "optim.minibatches=2")
    assert twice["signals"] == 4 * 5 * tokens * 3  # a pass of its own, whose numbers all need
    assert twice["gradients"] == 2 * found["gradients"]


def test_what_processes_that_share_sequences_exchange_by_hand() -> None:
    """4 heads of 32 in queries and outputs, 4 in keys and in values: 512 numbers a token and layer, of 2 layers."""
    config = compose("train", [*SETTINGS, "strategy=ddp", "strategy.num_processes=4", "strategy.sequence_parallel=2"])
    layout = layout_of(config, Machine())
    model = from_json(bundled_path("tiny") / "config.json")
    batch = Batch(rows=3, width=40, counted=20, micro_batches=5, team=2)
    setting = setting_of(config, layout, trains=True)
    found = planned_traffic(config, model, setting, layout, batch, prompt=32)
    # 60 tokens a process; each sends half of what they are to the other of its team; two teams. Forward and backward of
    # five micro-batches, and the reference's forward.
    assert found["sequences"] == 4 * 512 * 2 * 60 * 2 * (5 * 2 + 5)


def test_a_process_alone_brings_nobody_anything() -> None:
    assert planned("strategy=single") == {}


def test_a_checkpoint_goes_where_it_is_written() -> None:
    model = from_json(bundled_path("tiny") / "config.json")
    assert planned("strategy=fsdp", "strategy.num_processes=4")["checkpoint"] == 4 * model.parameters * 3 // 4
    assert planned("strategy=ddp", "strategy.num_processes=4")["checkpoint"] == 0
