"""The plan's memory beside what is measured, for three model sizes on a CPU; and the plan's tables of docs/models.md.

    python benchmarks/plan.py                    one JSON object a line on stdout; a process of its own for each
    python benchmarks/plan.py --only 30M --set optim.tokens_per_microbatch=1024
    python benchmarks/plan.py --needs            what each model option's default command needs, from the plan alone
    python benchmarks/plan.py --contexts         the longest contexts, from the plan alone

Each is `dgpo train model.path=FOLDER probe=true` on random weights in the shape of Qwen2: one update of full-length,
made-up rollouts in two micro-batches. `--set` adds an override. 500M has the shape of Qwen2.5-0.5B and needs 12 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dgpo_cli.bundled import bundled_path
from dgpo_cli.commands.plan import architecture_of
from dgpo_cli.config import keys
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.batches import Data
from dgpo_cli.planning.contexts import STRATEGIES, longest_context
from dgpo_cli.planning.fitting import GPU_SIZES
from dgpo_cli.planning.layout import Machine
from dgpo_cli.planning.needs import fewest_gpus, nodes_needed
from dgpo_cli.planning.plan import plan_training
from dgpo_cli.planning.remarks import size

SHAPES: dict[str, dict[str, int]] = {
    "30M": {"hidden_size": 384, "layers": 8, "heads": 6, "kv_heads": 2, "intermediate_size": 1536, "vocab_size": 32768},
    "120M": {
        "hidden_size": 640,
        "layers": 16,
        "heads": 10,
        "kv_heads": 2,
        "intermediate_size": 2560,
        "vocab_size": 32768,
    },
    "500M": {
        "hidden_size": 896,
        "layers": 24,
        "heads": 14,
        "kv_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151_936,
    },
}
SETTINGS = [
    "data=digit_chain",
    "reward=exact",
    "rollout.prompts_per_step=4",
    "rollout.group_size=4",
    "rollout.max_completion_tokens=224",
    "optim.tokens_per_microbatch=1024",
    "strategy.threads=1",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=SHAPES)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--needs", action="store_true")
    parser.add_argument("--contexts", action="store_true")
    options = parser.parse_args()
    if options.needs or options.contexts:
        print("\n".join([*(needs() if options.needs else []), *(contexts() if options.contexts else [])]))
        return
    for name in [options.only] if options.only else list(SHAPES):
        with tempfile.TemporaryDirectory() as folder:
            make_model(Path(folder), SHAPES[name])
            print(json.dumps({"size": name, **probed(folder, options.set)}), flush=True)


def sizes() -> dict[str, Architecture]:
    """The model options by size, but for those that do without a plan."""
    paths = {name: keys.flat_yaml(file).get("model.path") for name, file in keys.option_files("model").items()}
    found = {name: architecture_of("model", path) for name, path in paths.items() if name not in ("path", "tiny")}
    return dict(sorted(found.items(), key=lambda item: item[1].parameters))


def needs() -> list[str]:
    """Markdown: what `dgpo train model=NAME` needs, one row a model option."""
    titles = ("model", "GPUs", "strategy", "engine.batch_size", "peak of a process", "fewest 80 GB / 141 GB", "disk")
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---|" * (len(titles) - 1)]
    return [*lines, *(need(name, compose("train", [f"model={name}"]), model) for name, model in sizes().items())]


def need(name: str, config: TrainConfig, model: Architecture) -> str:
    """A row of that table."""
    needed = nodes_needed(config, model)
    if needed is None:
        return f"| {name} | none | | | | | |"
    gpus, gpu = needed
    made = plan_training(config, model, Machine(gpus=gpus, gpu_bytes=GPU_SIZES[gpu]), Data())
    fewest = [fewest_gpus(config, model, capacity) for capacity in GPU_SIZES.values()]
    cells = (
        name,
        f"{gpus} x {gpu}",
        made.layout.strategy,
        str(config.engine.batch_size),
        f"{made.peak_bytes / 2**30:.0f} GiB, {made.peak_phase}",
        " / ".join("-" if count is None else str(count) for count in fewest),
        size(made.disk["most"]),
    )
    return f"| {' | '.join(cells)} |"


def contexts() -> list[str]:
    """Markdown: one row a model option, a column a strategy; GPUs of 80 GB / 141 GB, k = 1,024 tokens."""
    lines = [f"| model | its limit | {' | '.join(STRATEGIES)} |", "|---|" + "---|" * (len(STRATEGIES) + 1)]
    for name, model in sizes().items():
        found = [[longest_context(model, one, gpu) for gpu in GPU_SIZES.values()] for one in STRATEGIES.values()]
        cells = [" / ".join(f"{tokens / 1024:.0f}k" if tokens else "-" for tokens in pair) for pair in found]
        lines.append(f"| {name} | {(model.max_positions or 0) // 1024}k | {' | '.join(cells)} |")
    return lines


def make_model(folder: Path, shape: dict[str, int]) -> None:
    """Random weights, with the bundled model's tokenizer: the probe's rollouts are random ids anyway."""
    script = (
        "import sys, json; from transformers import Qwen2Config, Qwen2ForCausalLM; size = json.loads(sys.argv[2]);"
        "Qwen2ForCausalLM(Qwen2Config(hidden_size=size['hidden_size'], num_hidden_layers=size['layers'],"
        "num_attention_heads=size['heads'], num_key_value_heads=size['kv_heads'], vocab_size=size['vocab_size'],"
        "intermediate_size=size['intermediate_size'], tie_word_embeddings=True, max_position_embeddings=32768,"
        "bos_token_id=None, eos_token_id=1, pad_token_id=None)).save_pretrained(sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(folder), json.dumps(shape)], check=True, stderr=subprocess.DEVNULL
    )
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_path("tiny") / file, folder / file)


def probed(folder: str, overrides: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "dgpo_cli", "train", f"model.path={folder}", *SETTINGS, *overrides, "probe=true"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    record = json.loads(done.stdout)
    names = ("parameters", "phase", "predicted_bytes", "measured_bytes", "predicted_over_measured", "tokens", "seconds")
    return {name: record[name] for name in names}


if __name__ == "__main__":
    main()
