"""A sharded head is put together in the dtype of the pass, and its gradient summed exactly: two real processes."""

from __future__ import annotations

from pathlib import Path

from model_factory import save_random_model
from several_processes import together


def test_a_head_of_shards_is_the_whole_in_half_the_bytes_and_its_gradient_the_exact_sum(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", vocab_size=523, hidden_size=32)  # no even number of rows
    records = together(Path(__file__).with_name("gathered_head_program.py"), 2, tmp_path, str(model))
    assert len(records) == 4
    for record in records:
        assert record["same"], record
        assert record["gradient"], record
        assert record["fresh"], record
        # 524 rows, with one to even them out. What rests on the CPU is gathered once in a pass of three calls.
        whole = 524 * 32 * {"float32": 4, "bfloat16": 2}[record["dtype"]]
        times = {"fsdp": 3, "fsdp_offload": 1}[record["strategy"]]
        assert record["bytes"] == [whole, whole, times * whole], record
