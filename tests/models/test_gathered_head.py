"""A sharded head is put together in the dtype of the pass, and its gradient summed exactly: two real processes."""

from __future__ import annotations

import json
from pathlib import Path

from model_factory import save_random_model
from several_processes import together


def own_code(folder: Path) -> Path:
    """Give a model a class of its own, in two files."""
    (folder / "helper_own.py").write_text("def doubled(number):\n    return 2 * number\n")
    (folder / "modeling_own.py").write_text(
        "from transformers import Qwen2ForCausalLM\n"
        "from .helper_own import doubled\n"
        "class OwnForCausalLM(Qwen2ForCausalLM):\n"
        "    def twice(self, number):\n"
        "        return doubled(number)\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}, "architectures": ["OwnForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_head_of_shards_is_the_whole_in_half_the_bytes_and_its_gradient_the_exact_sum(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", vocab_size=523, hidden_size=32)  # no even number of rows
    own = own_code(save_random_model(tmp_path / "own"))
    program = Path(__file__).with_name("gathered_head_program.py")
    *records, last = together(program, 2, tmp_path, str(model), str(own), str(tmp_path / "modules"))
    assert last == {"own_code": [["OwnForCausalLM", 42, [512, 32]]] * 2}
    assert len(records) == 4
    for record in records:
        assert record["same"], record
        assert record["gradient"], record
        assert record["fresh"], record
        # 524 rows, with one to even them out. What rests on the CPU is gathered once in a pass of three calls.
        whole = 524 * 32 * {"float32": 4, "bfloat16": 2}[record["dtype"]]
        times = {"fsdp": 3, "fsdp_offload": 1}[record["strategy"]]
        assert record["bytes"] == [whole, whole, times * whole], record
