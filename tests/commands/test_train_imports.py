"""What a run of the bundled model does not import, read or compose: each was a part of the time to its first step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

UNUSED = (
    # of dgpo
    *(
        "dgpo_cli.hydra_app",
        "dgpo_cli.sweeps",
        "dgpo_cli.commands.plan",
        "dgpo_cli.engines.http",
        "dgpo_cli.engines.openai_engine",
    ),
    # of others
    *("bitsandbytes", "datasets", "matplotlib", "optuna", "pandas", "peft", "scipy.optimize", "scipy.stats"),
    *("tensorboard", "torch._inductor.compile_fx", "torch.utils.tensorboard", "torchvision", "vllm", "wandb"),
)

PROGRAM = f"""
import builtins, json, sys

composed, model_files = [], []
from hydra._internal.config_loader_impl import ConfigLoaderImpl
load = ConfigLoaderImpl.load_configuration
ConfigLoaderImpl.load_configuration = lambda *args, **more: composed.append(0) or load(*args, **more)
read = open

def opened(file, *args, **more):
    if str(file).endswith("modeling_bert.py"):
        model_files.append(0)
    return read(file, *args, **more)

builtins.open = opened
from dgpo_cli.cli import main
code = main(sys.argv[1:])
found = [name for name in {UNUSED!r} if name in sys.modules]

import numpy
from transformers.loss import loss_for_object_detection
assignment = loss_for_object_detection.linear_sum_assignment(numpy.array([[4, 1], [2, 3]]))
places = [one.tolist() for one in assignment]
print("FOUND " + json.dumps([code, found, len(composed), len(model_files), places, "scipy.optimize" in sys.modules]))
"""


def test_a_run_composes_once_and_imports_what_it_uses(tmp_path: Path) -> None:
    words = ["train", "logger=none", "benchmark=none", "steps=1", "rollout.prompts_per_step=2", "rollout.group_size=2"]
    words += ["rollout.max_completion_tokens=4", "optim.tokens_per_microbatch=1000", "strategy.threads=1"]
    line = [sys.executable, "-c", PROGRAM, *words, "hydra.run.dir=run"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    last = done.stdout.splitlines()[-1] if done.stdout else ""
    assert last.startswith("FOUND "), done.stderr
    code, found, composed, model_files, places, there = json.loads(last.removeprefix("FOUND "))
    assert (code, found, composed) == (0, [], 1)
    assert model_files == 1, "the list of transformers' model files is read from disk once"
    # The function that matches boxes is scipy's, from when it is called.
    assert (places, there) == ([[0, 1], [1, 0]], True)
    assert "leaked" not in done.stderr, "at its end the program frees what its imports made"
