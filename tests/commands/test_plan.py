"""`dry_run=true`: the plan of a command, from the command line."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_factory import save_random_model

from dgpo_cli.cli import main
from dgpo_cli.commands.plan import architecture_of
from dgpo_cli.config.model_groups import ArchitectureConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.planning.memory import PARTS


def plan(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main([*argv, "dry_run=true"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_32b_run_is_planned_without_torch_and_leaves_no_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from dgpo_cli.cli import main; "
        "code = main(['train', 'model=qwen32b', 'algo=dgpo', 'dry_run=true']); "
        "print('torch' in sys.modules, code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    record = json.loads(done.stdout)
    assert done.stderr.split() == ["False", "0"]
    assert record["model"]["parameters"] == 32_763_876_352
    assert set(record["memory"]) == set(PARTS)
    assert record["precision"]["bytes_per_trained_parameter"] == 16
    assert any(warning.startswith("does not fit") for warning in record["warnings"])
    assert "it fits from 10 GPUs of 141 GB on" in record["warnings"]
    assert any("no GPU here" in warning for warning in record["warnings"])
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_run_has_its_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    record = plan(capsys, "train", "optim.minibatches=2", "optim.epochs=3")
    batch = record["batch"]
    assert record["steps"] == 65
    assert (batch["rollouts_per_step"], batch["rollouts_per_update"], batch["updates_per_step"]) == (128, 64, 6)
    assert batch["updates"] == 65 * 6
    # The longest prompt of the task has no more than 40 characters, so no more tokens; 40 more are sampled.
    assert batch["prompt_tokens"] <= 40
    assert batch["tokens_per_step_max"] == 128 * (batch["prompt_tokens"] + 40)
    assert (batch["data_rows"], batch["data_epochs"]) == (16384, round(65 * 16 / 16384, 3))
    # float32 weights and two moments of 341,760 parameters; three checkpoints stay and a fourth is being written.
    assert record["disk"]["checkpoint"] == 12 * 341_760
    assert (record["disk"]["kept"], record["disk"]["most"]) == (3 * 12 * 341_760, 4 * 12 * 341_760)
    assert record["fits"] == {"this CPU": True}


def test_the_bundled_evaluation_is_planned_with_its_own_problems(capsys: pytest.CaptureFixture[str]) -> None:
    """digit_chain as the benchmark is known like the data: its longest prompt, not the context's room."""
    record = plan(capsys, "train", "engine.batch_size=512")
    evaluated, sampled = (record["memory_by_phase"][name]["cache"] for name in ("evaluation", "rollout"))
    assert evaluated == pytest.approx(4 * sampled, rel=0.1)  # 512 problems beside 128 rollouts of as many tokens


def test_a_run_with_adapters_stores_and_moves_little(capsys: pytest.CaptureFixture[str]) -> None:
    record = plan(capsys, "train", "model=qwen7b", "model.lora.rank=16", "model.dtype=bfloat16")
    trained = record["model"]["trained_parameters"]
    assert trained == 40_370_176  # 28 layers x 16 x (in + out) of the seven maps
    assert record["memory"]["reference"] == 0
    assert record["disk"]["checkpoint"] == 12 * trained


def test_an_evaluation_is_planned_for_its_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    records = plan(capsys, "eval", "model=qwen7b", "benchmark=[aime2024,math500]")
    assert [record["batch"]["samples"] for record in records] == [30 * 32, 500 * 4]
    assert all(record["memory"]["optimizer"] == record["memory"]["gradients"] == 0 for record in records)
    assert all(record["memory"]["cache"] > 0 for record in records)


def test_rollouts_are_planned_with_their_reference(capsys: pytest.CaptureFixture[str]) -> None:
    record = plan(capsys, "rollout", "model=qwen7b", "reference=qwen0_5b", "limit=2")
    assert record["batch"]["rollouts"] == 2 * 4
    assert record["memory"]["reference"] == 4 * 494_032_768
    assert record["memory"]["weights"] == 4 * 7_615_616_512


def test_a_sweep_gets_a_plan_for_each_job(capsys: pytest.CaptureFixture[str]) -> None:
    records = plan(capsys, "train", "-m", "rollout.group_size=8,16")
    assert [record["batch"]["rollouts_per_step"] for record in records] == [128, 256]


def test_in_a_sweep_over_models_each_brings_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    records = plan(capsys, "train", "-m", "model=qwen0_5b,qwen_math_7b", "benchmark=none")
    assert [record["strategy"]["strategy"] for record in records] == ["single", "fsdp"]
    # Keys and values of a unit: 24 layers x 2 heads x 64 in float32 (a CPU), 28 x 4 x 128 in bfloat16. 16 bytes a drawn
    # token: its uniform and its log-prob.
    small, large = (record["memory_by_phase"]["rollout"]["cache"] for record in records)
    assert small == 128 * (2048 * 25 * 2 * 64 * 2 * 4 + 151_936 * 24 + 1024 * 16)
    assert large == 64 * (4096 * 29 * 4 * 128 * 2 * 2 + 152_064 * 24 + 3072 * 16)


def test_the_32b_recipe_prints_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    record = plan(capsys, "train", "recipe=reproduce_dgpo_32b")
    batch = record["batch"]
    assert (record["model"]["name"], record["strategy"]["processes"]) == ("qwen32b", 64)
    # 512 prompts x 16 in 16 updates; 8,192 rollouts over 64 processes, a micro-batch each.
    assert (batch["rollouts_per_step"], batch["updates_per_step"], batch["rollouts_per_update"]) == (8192, 16, 512)
    assert (batch["rollouts_per_process"], batch["micro_batches_per_update"]) == (128, 8)
    assert record["fits"] == {"80 GB": False, "141 GB": True}
    # float32 weights, gradients and two moments of 32.8e9 parameters over 64 processes.
    held = record["memory_by_phase"]["optimizer"]
    assert held["weights"] == held["gradients"] == 4 * 32_763_876_352 // 64


SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
exec "$@" dry_run=true
"""


def test_the_slurm_script_starts_the_command_with_what_follows_it(tmp_path: Path) -> None:
    """Slurm's own commands are stood in for: there is no Slurm to test with."""
    script = Path(__file__).parents[2] / "recipes" / "slurm" / "train.sbatch"
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/bash\necho node1\necho node2\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
    line = ["bash", str(script), "model=qwen32b", "strategy=fsdp"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "qwen32b"


SRUN_WITH_SERVERS = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
if [[ $* == *vllm.entrypoints* ]]; then
    echo "$@" > server.txt
    exec python3 -m http.server --bind 127.0.0.1 --directory healthy "$SERVER_PORT"
fi
exec "$@" dry_run=true
"""


def test_the_slurm_script_with_servers_trains_when_they_are_up(tmp_path: Path) -> None:
    """Slurm's own commands and the server are stood in for; what dgpo gets, and that the server ends, is real."""
    script = Path(__file__).parents[2] / "recipes" / "slurm" / "train_vllm.sbatch"
    for name, text in (("srun", SRUN_WITH_SERVERS), ("scontrol", "#!/bin/bash\necho node1\necho 127.0.0.1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "healthy").mkdir()
    (tmp_path / "healthy" / "health").write_text("")
    job = random.randrange(10_000)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": "node[1-2]"}
    environment |= {"SERVERS": "1", "MODEL": "Qwen/Qwen2.5-7B", "VLLM_PYTHON": "python3"}
    environment |= {"SERVER_PORT": str(10_000 + job)}
    line = ["bash", str(script), "model=qwen7b", "strategy=fsdp"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["model"]["name"] == "qwen7b"
    assert "rollout" not in record["memory_by_phase"]
    assert f"--host 127.0.0.1 --port {10_000 + job}" in (tmp_path / "server.txt").read_text()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 10_000 + job), timeout=5).close()


def test_a_run_that_exists_is_not_in_the_way(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert plan(capsys, "train", f"hydra.run.dir={tmp_path}")["steps"] == 65
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_context_that_a_completion_fills_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    record = plan(capsys, "train", "model=qwen_math_7b", "rollout.max_completion_tokens=8192")
    assert any("leaves no room for a prompt" in warning for warning in record["warnings"])


def test_a_folder_speaks_for_itself(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", hidden_size=32, layers=3)
    stated = ArchitectureConfig(hidden_size=1, layers=1, heads=1, kv_heads=1)
    assert architecture_of("model", str(folder), stated).layers == 3


def test_a_hub_id_that_an_option_names_needs_no_network() -> None:
    assert architecture_of("model", "Qwen/Qwen2.5-7B").parameters == 7_615_616_512


def test_a_hub_id_of_unknown_sizes_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as raised:
        architecture_of("model", "nobody/unheard-of")
    problem = raised.value.problems[0]
    assert "its config.json is not on this machine" in problem.message
    assert "hf download nobody/unheard-of config.json" in problem.hint


@pytest.mark.parametrize(
    "more", [["benchmark=aime2024", "benchmark.completions=rows.jsonl"], ["engine=openai", "engine.url=http://a:1/v1"]]
)
def test_what_loads_no_model_has_no_plan(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"index": 0, "completion": "x"}\n')
    assert main(["eval", *more, "dry_run=true"]) == 2
    assert "nothing to plan" in capsys.readouterr().err
