"""What a training step costs: DGPO beside GRPO, and the memory that grows with the number of tokens.

    python benchmarks/step.py                    one JSON object on stdout; every figure from a process of its own

    dgpo_over_grpo           CPU time of a step's updates, algo=dgpo / algo=grpo without KL, the reference included
    dgpo_over_grpo_with_kl   the same with kl_coef 0.04 on both sides
    peak_mib                 what a step on a wide random model (V = 151,936, D = 32) takes at its peak above what
                             stands before it, by counted tokens, in one micro-batch; `body` is the same without head
    one_logits_mib           what a single float32 [tokens, V] tensor would take

Weights are random and rollouts too: the cost does not depend on what they say. Model of the ratios: the shape of
Qwen2.5-0.5B (`--layers` of its 24), float32, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgpo_cli.config.commands import OptimConfig

SETTINGS_OF_UPDATES = OptimConfig(tokens_per_microbatch=16384)
SETTINGS = {"grpo": ("grpo", 0.0), "dgpo": ("dgpo", 0.0), "grpo_kl": ("grpo", 0.04), "dgpo_kl": ("dgpo", 0.04)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=["ratio", "memory"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    report: dict[str, Any] = {}
    if options.only != "memory":
        seconds = child({"measure": "ratio", "layers": options.layers, "repeats": options.repeats})
        report["seconds"] = seconds
        report["dgpo_over_grpo"] = round(seconds["dgpo"] / seconds["grpo"], 3)
        report["dgpo_over_grpo_with_kl"] = round(seconds["dgpo_kl"] / seconds["grpo_kl"], 3)
    if options.only != "ratio":
        for tokens in (1024, 8192):
            peaks = {part: child({"measure": "memory", "tokens": tokens, "part": part}) for part in ("step", "body")}
            report.setdefault("peak_mib", {})[str(tokens)] = peaks
            report.setdefault("one_logits_mib", {})[str(tokens)] = round(tokens * 151_936 * 4 / 2**20)
    print(json.dumps(report, indent=2))


def child(task: dict[str, Any]) -> Any:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    line = [sys.executable, __file__, "--child", json.dumps(task)]
    output = subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def measure(task: dict[str, Any]) -> Any:
    import torch

    torch.set_num_threads(1)
    return ratios(task) if task["measure"] == "ratio" else peak(task)


def ratios(task: dict[str, Any]) -> dict[str, float]:
    """Fastest CPU seconds of a step's updates for each setting, taken in turn."""
    from dgpo_cli.training.optimizer import Optimizer

    model = random_model(hidden=896, layers=task["layers"], intermediate=4864, heads=14)
    reference = model.frozen_copy()
    optimizer = Optimizer(model.model, SETTINGS_OF_UPDATES)  # one for all: four would hold their moments four times
    steps = {name: updater(model, reference, optimizer, *setting) for name, setting in SETTINGS.items()}
    fastest = dict.fromkeys(SETTINGS, float("inf"))
    batch = random_batch(rollouts=8, prompt=16, completion=64)
    for _ in range(task["repeats"] + 1):
        for name, update in steps.items():
            started = time.process_time()
            update(batch)
            fastest[name] = min(fastest[name], time.process_time() - started)
    return {name: round(value, 2) for name, value in fastest.items()}


def peak(task: dict[str, Any]) -> int:
    """MiB that a step of so many counted tokens takes at its peak, above what stands before it."""
    from dgpo_cli.training.optimizer import Optimizer

    model = random_model(hidden=32, layers=2, intermediate=64, heads=2)
    if task["part"] == "body":
        update = body_pass(model)
    else:
        optimizer = Optimizer(model.model, SETTINGS_OF_UPDATES)
        update = updater(model, model.frozen_copy(), optimizer, "dgpo", 0.0)
    update(random_batch(rollouts=4, prompt=8, completion=16))  # the optimizer's moments and the buffers of a first pass
    batch = random_batch(rollouts=16, prompt=16, completion=task["tokens"] // 16)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    before = memory("VmRSS")
    update(batch)
    return round((memory("VmHWM") - before) / 2**20)


def memory(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def random_model(*, hidden: int, layers: int, intermediate: int, heads: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from dgpo_cli.models.language_model import LanguageModel

    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )

    class Tokenizer:
        pad_token_id, eos_token_id = 0, 0

    return LanguageModel(Qwen2ForCausalLM(config).eval(), Tokenizer(), "random", has_head=True)


def random_batch(*, rollouts: int, prompt: int, completion: int) -> Any:
    import torch

    from dgpo_cli.training.update import StepBatch
    from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

    ids = torch.randint(0, 151_936, (rollouts, prompt + completion), generator=torch.Generator().manual_seed(0))
    made = []
    for row in ids.tolist():
        asked = Prompt(Problem(0, "0", (("user", ""),), ""), "", tuple(row[:prompt]))
        made.append(Rollout(SampleRequest(asked, 0, 0), tuple(row[prompt:]), "", "length"))
    advantages = torch.tensor([1.0, -1.0] * (rollouts // 2))
    return StepBatch(made, [completion] * rollouts, advantages, 2, list(range(rollouts)))


def updater(model: Any, reference: Any, optimizer: Any, name: str, kl_coef: float) -> Any:
    """A function that makes a step's updates on a batch, as one micro-batch."""
    from dgpo_cli.algorithm import Algorithm
    from dgpo_cli.config.compose import compose
    from dgpo_cli.training.stopping import StopGuard
    from dgpo_cli.training.update import Updater

    config = compose("train", [f"algo={name}"])
    algorithm = Algorithm(replace(config.algo, kl_coef=kl_coef), config.gating, max_completion_tokens=1024)
    updates = Updater(model, reference, algorithm, optimizer, SETTINGS_OF_UPDATES, temperature=1.0)
    return lambda batch: updates.run(batch, lr=1e-9, noise_floor=0.0, guard=StopGuard(0.0))


def body_pass(model: Any) -> Any:
    """Forward and backward of the body alone, over the same micro-batch."""
    from dgpo_cli.models.microbatch import make_microbatches
    from dgpo_cli.models.scoring import predictive_states

    def update(batch: Any) -> None:
        rows = list(range(len(batch.rollouts)))
        for micro in make_microbatches(batch.rollouts, rows, batch.lengths, tokens=16384, pad_id=0):
            predictive_states(model, micro).sum().backward()

    return update


if __name__ == "__main__":
    main()
