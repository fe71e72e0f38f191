"""What a training step costs against what: CPU seconds of sweeps over one size at a time, and fitted exponents.

    python benchmarks/cost.py                        every sweep; about ten minutes on one quiet core
    python benchmarks/cost.py --only length vocabulary --repeats 5
    python benchmarks/cost.py --only processes       `dgpo train` itself on 1, 2 and 4 processes

    group        rollouts of a prompt
    length       tokens of a completion, all of full length
    vocabulary   rows of the head
    model        weights of the body, by its width
    processes    CPU seconds of all processes together: what sharing the work costs

A step is a rollout by the in-process engine and one update of algo=dgpo with its reference, in float32 on one thread,
on a Qwen2 of random weights. Points of a sweep take turns; each is the median of its turns. The exponent is the slope
of a straight line through log cost against log size, with the 95% interval of that slope (t, two degrees of freedom
less than points): it holds for this range of sizes, and a fixed cost makes it smaller than that of large sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Point:
    """The sizes of a step."""

    group: int = 8
    length: int = 64
    vocabulary: int = 4_096
    width: int = 128
    prompts: int = 4
    prompt: int = 16
    layers: int = 4


SWEEPS: dict[str, tuple[str, list[int]]] = {
    "group": ("group", [2, 4, 8, 16, 32]),
    "length": ("length", [32, 64, 128, 256, 512]),
    "vocabulary": ("vocabulary", [2_048, 8_192, 32_768, 131_072]),
    "model": ("width", [64, 128, 256, 512]),
}
PROCESSES = [1, 2, 4]
STRATEGIES = ["ddp", "fsdp"]
STEPS = (2, 22)  # of the two runs whose difference is the cost of a step


@dataclass(frozen=True)
class Fit:
    """cost ~ size^exponent, with the ends of the 95% interval of the exponent; NaN for them at two points."""

    exponent: float
    low: float
    high: float


def fitted(sizes: list[float], costs: list[float]) -> Fit:
    from scipy.stats import linregress, t

    line = linregress([math.log(size) for size in sizes], [math.log(cost) for cost in costs])
    free = len(sizes) - 2
    half = float(t.ppf(0.975, free) * line.stderr) if free > 0 else math.nan
    return Fit(float(line.slope), float(line.slope) - half, float(line.slope) + half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*SWEEPS, "processes"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SWEEP", help=", ".join(names))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(sweep(asked.child, asked.repeats)))
        return
    for name in asked.only:
        if name == "processes":
            for strategy in STRATEGIES:
                print("\n".join(table(name, of_processes(strategy, asked.repeats))), flush=True)
        else:
            print("\n".join(table(name, in_fresh_process(name, asked.repeats))), flush=True)


def table(name: str, found: dict[str, Any]) -> list[str]:
    """Markdown: a column a size, a row a part of the cost, its exponent last."""
    sizes: list[float] = found["sizes"]
    lines = [f"| {name} | {' | '.join(f'{size:,.0f}' for size in sizes)} | exponent |"]
    lines.append("|---" * (len(sizes) + 2) + "|")
    for part, costs in found["parts"].items():
        fit = fitted(sizes, costs)
        shown = " | ".join(f"{cost:.3f} s" for cost in costs)
        lines.append(f"| {part} | {shown} | {fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}] |")
    return [*lines, ""]


def in_fresh_process(name: str, repeats: int) -> dict[str, Any]:
    paths = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
    line = [sys.executable, __file__, "--child", name, "--repeats", str(repeats)]
    environment = {**os.environ, **THREADS, "PYTHONPATH": paths}
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sweep(name: str, repeats: int) -> dict[str, Any]:
    """Sizes, and median CPU seconds of drawing and of training at each."""
    field, values = SWEEPS[name]
    steps = [step_of(replace(Point(), **{field: value})) for value in values]
    times: list[list[tuple[float, float]]] = [[] for _ in steps]
    for turn in range(repeats + 1):
        for (step, _), taken in zip(steps, times, strict=True):
            seconds = step()
            if turn:  # the first one makes the moments and the buffers
                taken.append(seconds)
    sizes = [float(weights) for _, weights in steps] if name == "model" else [float(value) for value in values]
    parts = {
        part: [median(seconds[number] for seconds in taken) for taken in times]
        for number, part in enumerate(("rollout", "training"))
    }
    return {"sizes": sizes, "parts": parts}


def step_of(point: Point) -> tuple[Callable[[], tuple[float, float]], int]:
    """A step that gives the CPU seconds of its rollout and of its update, and the weights of the model's body."""
    import torch
    from gpu_hour.models import SMALL, asked_for
    from gpu_hour.steps import update_on, updater_of

    from dgpo_cli.config.compose import compose
    from dgpo_cli.engines.transformers_engine import TransformersEngine
    from dgpo_cli.types import Prompt, SampleRequest, Sampling

    torch.set_num_threads(1)
    sizes = replace(
        SMALL,
        hidden_size=point.width,
        layers=point.layers,
        head_dim=point.width // SMALL.heads,
        intermediate_size=4 * point.width,
        vocab_rows=point.vocabulary,
    )
    rollouts = point.prompts * point.group
    settings = [f"rollout.max_completion_tokens={point.length}", f"engine.batch_size={rollouts}"]
    config = compose("train", ["model.path=bundled:tiny", "strategy.device=cpu", "logger=none", *settings])
    policy, updater = updater_of(config, sizes, "cpu")
    engine = TransformersEngine(policy, stop_ids=frozenset(), batch_size=rollouts)
    prompts: list[Prompt] = [
        one.prompt for one in asked_for(point.prompts, point.prompt, point.vocabulary, uneven=False)
    ]
    requests = [
        SampleRequest(prompt, sample, seed=100 * number + sample)
        for number, prompt in enumerate(prompts)
        for sample in range(point.group)
    ]

    def step() -> tuple[float, float]:
        started = time.process_time()
        drawn = engine.generate(requests, Sampling(1.0, 1.0, point.length))
        between = time.process_time()
        update_on(drawn, updater)()
        return between - started, time.process_time() - between

    return step, sizes.body_parameters


def of_processes(strategy: str, repeats: int) -> dict[str, Any]:
    """CPU seconds of a step, of all processes together: of a long run less those of a short one."""
    parts: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in PROCESSES:
            costs = []
            for turn in range(repeats):
                few, many = (cpu_of_run(Path(scratch) / f"{size}_{turn}_{n}", strategy, size, n) for n in STEPS)
                costs.append((many - few) / (STEPS[1] - STEPS[0]))
            parts.append(median(costs))
    return {"sizes": [float(size) for size in PROCESSES], "parts": {strategy: parts}}


def cpu_of_run(folder: Path, strategy: str, size: int, steps: int) -> float:
    """CPU seconds of a whole run with everything that it starts."""
    line = [sys.executable, "-m", "dgpo_cli", "train", f"steps={steps}", "benchmark=none", "logger=none"]
    line += ["rollout.save=none", "checkpoint.every=0", f"strategy={strategy}", f"strategy.num_processes={size}"]
    environment = {**os.environ, **THREADS, "PYTHONPATH": str(ROOT)}
    with waited_for() as used:
        subprocess.run([*line, f"hydra.run.dir={folder}"], env=environment, check=True, capture_output=True)
    return used()


@contextmanager
def waited_for() -> Iterator[Callable[[], float]]:
    """CPU seconds of the processes that ended within."""
    import resource

    def now() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = now()
    yield lambda: now() - before


if __name__ == "__main__":
    main()
