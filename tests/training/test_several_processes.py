"""The same training on any number of processes: real ones, over gloo, against one alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_factory import save_random_model
from several_processes import together

PROGRAM = Path(__file__).with_name("several_processes_program.py")


@pytest.mark.parametrize(
    ("size", "strategies"),
    [
        (2, ["ddp", "fsdp"]),
        pytest.param(2, ["fsdp_offload"], marks=pytest.mark.slow),
        pytest.param(1, ["fsdp", "fsdp_offload"], marks=pytest.mark.slow),
        pytest.param(4, ["ddp", "fsdp"], marks=pytest.mark.slow),
    ],
)
def test_gradient_loss_and_weights_are_those_of_one_process(tmp_path: Path, size: int, strategies: list[str]) -> None:
    """One long rollout stands beside many short ones, so the ranks have unlike work; LoRA, KL and epochs included.

    And a signal that one rank gets within its work stops them all before the first update, and it can be redone.
    """
    tied = save_random_model(tmp_path / "tied")
    own_head = save_random_model(tmp_path / "own_head", tied=False, vocab_size=523)
    records = together(PROGRAM, size, tmp_path, str(tied), str(own_head), *strategies)
    stopped = [record for record in records if "stopped" in record]
    assert len(stopped) == (2 if size <= 2 else 1) * len(strategies)
    for record in stopped:
        assert record["stopped"] == [[True, False]] * size, record
        assert record["same"], record
    records = [record for record in records if "gradient" in record]
    assert len(records) == (11 if size % 2 == 0 else 9) * len(strategies) + (
        "ddp" in strategies
    )  # what cannot be sharded
    for record in records:
        assert record["gradient"] < 1e-6, record
        assert record["loss"] < 1e-6, record
        assert record["weights"] < 1e-5, record
        assert record["tokens"], record
