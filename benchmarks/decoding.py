"""What the in-process engine takes to draw a unit: this tree beside an earlier commit, on the same prompts and seeds.

    python benchmarks/decoding.py COMMIT             every shape, CPU and wall seconds of both sides as a table
    python benchmarks/decoding.py COMMIT tiny head   some shapes

    tiny    the bundled model, 16 prompts x 8 completions of 48 tokens, none of which ends early
    padded  the same with prompts of different lengths
    ending  the same of 200 tokens, each token the last one with a chance of about 4%
    head    hidden 896, 4 layers, V 151,936, 2 prompts x 8 completions of 64 tokens
    group   hidden 896, 4 layers, V 2,048, 1 prompt of 512 tokens x 16 completions of 32

Random weights but for the bundled model. One thread; the sides take turns; the fastest of `--repeats` runs each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Shape:
    prompts: int
    group: int
    prompt_tokens: int
    tokens: int
    uneven: bool = False  # prompts of up to seven tokens less
    stops: int = 0  # ids of 99 that end a completion
    vocabulary: int = 0  # of a random model of hidden size 896; 0 is the bundled model


SHAPES = {
    "tiny": Shape(16, 8, 20, 48),
    "padded": Shape(16, 8, 20, 48, uneven=True),
    "ending": Shape(16, 8, 20, 200, stops=12),
    "head": Shape(2, 8, 20, 64, vocabulary=151_936),
    "group": Shape(1, 16, 512, 32, vocabulary=2_048),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="the earlier commit")
    parser.add_argument("shapes", nargs="*", metavar="shape", help=f"of {', '.join(SHAPES)}; all without any")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measure(SHAPES[asked.shapes[0]], asked.child)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        earlier = Path(scratch) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", earlier, asked.commit], cwd=ROOT, check=True)
        try:
            print("| shape | CPU s before | CPU s now | ratio | wall s before | wall s now | same tokens |")
            print("|---|---|---|---|---|---|---|")
            for name in asked.shapes or SHAPES:
                print(row(name, earlier, Path(scratch), asked.repeats), flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", earlier], cwd=ROOT, check=True)


def row(name: str, earlier: Path, scratch: Path, repeats: int) -> str:
    folder = model_of(SHAPES[name], scratch)
    sides: dict[Path, list[dict[str, float]]] = {earlier: [], ROOT: []}
    for _ in range(repeats):
        for tree, runs in sides.items():
            line = [sys.executable, __file__, "-", name, "--child", str(folder)]
            environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(line, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    cpu, wall = ([min(run[key] for run in runs) for runs in sides.values()] for key in ("cpu", "wall"))
    tokens = [runs[0]["tokens"] for runs in sides.values()]
    return (
        f"| `{name}` | {cpu[0]:.2f} | {cpu[1]:.2f} | {cpu[1] / cpu[0]:.2f} | {wall[0]:.2f} | {wall[1]:.2f} "
        f"| {'yes' if tokens[0] == tokens[1] else 'no'} |"
    )


def model_of(shape: Shape, scratch: Path) -> Path:
    """A folder with the shape's model."""
    bundled = ROOT / "dgpo_cli" / "bundled" / "tiny"
    if not shape.vocabulary:
        return bundled
    folder = scratch / f"model_{shape.vocabulary}"
    if folder.exists():
        return folder
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 4, "max_position_embeddings": 1024}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": shape.vocabulary}
    config = transformers.Qwen2Config(**sizes, **heads, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(bundled).save_pretrained(folder)
    return folder


def measure(shape: Shape, folder: str) -> dict[str, object]:
    """CPU and wall seconds of one call, and a hash of its tokens; in a process of its own, by the code on its path."""
    import torch

    from dgpo_cli.engines.transformers_engine import TransformersEngine
    from dgpo_cli.evaluation.manifest import text_sha256
    from dgpo_cli.models.loading import load_model
    from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling

    torch.set_num_threads(1)
    chance = random.Random(0)
    requests = []
    for number in range(shape.prompts):
        length = shape.prompt_tokens - (number % 8 if shape.uneven else 0)
        ids = tuple(chance.randrange(20, 90) for _ in range(length))
        prompt = Prompt(Problem(number, str(number), (), ""), "", ids)
        requests += [SampleRequest(prompt, sample, seed=1000 * number + sample) for sample in range(shape.group)]
    stops = frozenset(chance.sample(range(2, 99), shape.stops))
    engine = TransformersEngine(load_model(folder), stop_ids=stops, batch_size=len(requests))
    engine.generate(requests, Sampling(1.0, 1.0, 4))
    wall, cpu = time.perf_counter(), time.process_time()
    drawn = engine.generate(requests, Sampling(1.0, 1.0, shape.tokens))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu": cpu, "wall": wall, "tokens": text_sha256([rollout.token_ids for rollout in drawn])}


if __name__ == "__main__":
    main()
