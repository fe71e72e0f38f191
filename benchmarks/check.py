"""A guard: measures the ratios of recorded.json again, and fails if one is 20% worse than recorded.

    python benchmarks/check.py                       every ratio; about five minutes on one quiet core; exit code 0 or 1
    python benchmarks/check.py --only sampling startup
    python benchmarks/check.py --record              writes what it measures into recorded.json, with date and machine

Only ratios are compared, never seconds: both sides of a ratio take turns in one process on one thread, in CPU time, and
the ratio is that of their medians. Smaller is better in all of them. The problems are smaller than those of RESULTS.md,
so that the guard is quick: its values are not those of the tables there.

    score, score_shared  token_stats with two heads, or one for both models, over the two float32 products alone
    train, frozen        token_logprobs forward and backward: over plain autograd; under a frozen head over two products
    dgpo, dgpo_kl        the updates of algo=dgpo over those of algo=grpo; both with kl_coef 0.04
    step_memory          what a step takes at its peak over one float32 [tokens, V] tensor (1,024 tokens)
    plan_memory          measured over planned peak of an update, 30 M parameters
    sampling             the engine's drawing over the model's bare passes with the same cache
    startup              `dgpo train` of one step, from the command to its end, over importing torch and transformers
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(path) for path in (ROOT / "benchmarks", ROOT) if str(path) not in sys.path]

RECORDED = Path(__file__).with_name("recorded.json")
WORSE = 1.2
REPEATS = 5
TOKENS, VOCABULARY, WIDTH = 512, 37_984, 896  # a quarter of Qwen2.5-0.5B's head
SMALL_STEP = {"hidden": 256, "layers": 6, "intermediate": 1024, "heads": 4}
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
Sides = tuple[Callable[[], object], Callable[[], object]]


def main(argv: list[str] | None = None) -> int:
    """Print a line for each ratio; 1 if one is worse than it may be, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RATIOS), default=list(RATIOS), metavar="RATIO")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="another file")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--child", choices=list(RATIOS), help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.child:
        print(json.dumps(RATIOS[asked.child](asked.repeats)))
        return 0
    recorded: dict[str, Any] = (
        json.loads(asked.recorded.read_text(encoding="utf-8")) if asked.recorded.is_file() else {}
    )
    code = 0
    for name in asked.only:
        measured = in_fresh_process(name, asked.repeats)
        if asked.record:
            recorded[name] = {"ratio": round(measured, 4), **provenance(name, asked.repeats)}
            asked.recorded.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
        line, held = judged(name, measured, recorded.get(name))
        print(line, flush=True)
        code = code if held else 1
    return code


def judged(name: str, measured: float, recorded: dict[str, Any] | None) -> tuple[str, bool]:
    """A line, and whether the ratio is no more than 20% above the recorded one. Without one it does not hold."""
    if recorded is None:
        return f"{name}: {measured:.3f}, not recorded: --record does it", False
    change = measured / recorded["ratio"]
    held = change <= WORSE
    verdict = "ok" if held else f"WORSE than {WORSE:g} times the recorded one"
    return (
        f"{name}: {measured:.3f}, recorded {recorded['ratio']:.3f} ({recorded['date']}), {change - 1:+.0%}: {verdict}",
        held,
    )


def provenance(name: str, repeats: int) -> dict[str, Any]:
    """Where a recorded ratio comes from."""
    return {
        "date": date.today().isoformat(),
        "command": f"python benchmarks/check.py --record --only {name} --repeats {repeats}",
        "machine": f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}",
        "versions": {one: version(one) for one in ("torch", "transformers")},
    }


def processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def in_fresh_process(name: str, repeats: int) -> float:
    line = [sys.executable, __file__, "--child", name, "--repeats", str(repeats)]
    done = subprocess.run(line, env={**os.environ, **THREADS}, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def ratio_of(sides: Sides, repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """Median time of the first over that of the second. They take turns, after a turn that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for work, taken in zip(sides, times, strict=True):
            started = clock()
            work()
            if turn:
                taken.append(clock() - started)
    return median(times[0]) / median(times[1])


# --- the ratios ---


def of_scoring(measure: str) -> Callable[[int], float]:
    def ratio(repeats: int) -> float:
        import torch
        from scoring import Bench

        torch.set_num_threads(1)
        torch.manual_seed(0)
        hidden, weight = torch.randn(TOKENS, WIDTH), 0.05 * torch.randn(VOCABULARY, WIDTH)
        moved = hidden + 0.01 * torch.randn(TOKENS, WIDTH), weight + 0.0005 * torch.randn(VOCABULARY, WIDTH)
        bench = Bench(hidden, weight, *moved, torch.randint(0, VOCABULARY, (TOKENS,)))
        return ratio_of(bench.sides(measure), repeats)

    return ratio


def of_updates(first: str, second: str) -> Callable[[int], float]:
    def ratio(repeats: int) -> float:
        import step
        import torch

        from dgpo_cli.models.frozen import frozen_copy
        from dgpo_cli.training.optimizer import Optimizer

        torch.set_num_threads(1)
        model = step.random_model(**SMALL_STEP)
        reference, optimizer = frozen_copy(model), Optimizer(model.model, step.SETTINGS_OF_UPDATES)
        batch = step.random_batch(rollouts=8, prompt=16, completion=32)

        def side(name: str) -> Callable[[], object]:
            update = step.updater(model, reference, optimizer, *step.SETTINGS[name])
            return lambda: update(batch)

        return ratio_of((side(first), side(second)), repeats)

    return ratio


def step_memory(repeats: int) -> float:
    import step

    peaks = [step.child({"measure": "memory", "tokens": 1024, "part": "step"}) for _ in range(min(3, repeats))]
    return float(median(peaks) / (1024 * 151_936 * 4 / 2**20))


def plan_memory(_: int) -> float:
    import plan

    with tempfile.TemporaryDirectory() as folder:
        plan.make_model(Path(folder), plan.SHAPES["30M"])
        record = plan.probed(folder, [])
    return float(record["measured_bytes"] / record["predicted_bytes"])


def sampling(repeats: int) -> float:
    """128 completions of 40 tokens by the bundled model, whose draws never end early."""
    import torch
    from gpu_hour.models import asked_for

    from dgpo_cli.bundled import bundled_path
    from dgpo_cli.engines.transformers_engine import TransformersEngine
    from dgpo_cli.models.loading import load_model
    from dgpo_cli.types import Sampling

    torch.set_num_threads(1)
    count, prompt, tokens = 128, 20, 40
    model = load_model(str(bundled_path("tiny")))
    engine = TransformersEngine(model, stop_ids=frozenset(), batch_size=count)
    requests = asked_for(count, prompt, model.vocabulary_size, uneven=False)
    prompts = torch.tensor([request.prompt.token_ids for request in requests])

    @torch.no_grad()
    def bare() -> None:
        cache, ids = None, prompts
        for _ in range(tokens):
            output = model.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, ids = output.past_key_values, output.logits[:, -1].argmax(-1, keepdim=True)

    return ratio_of((lambda: engine.generate(requests, Sampling(1.0, 1.0, tokens)), bare), repeats)


def startup(repeats: int) -> float:
    """CPU time of whole processes."""
    import resource

    def used() -> float:
        taken = resource.getrusage(resource.RUSAGE_CHILDREN)
        return taken.ru_utime + taken.ru_stime

    def ended(*words: str) -> None:
        environment = {**os.environ, **THREADS, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as scratch:
        run = ["-m", "dgpo_cli", "train", "steps=1", "benchmark=none", "logger=none", f"hydra.run.dir={scratch}/run"]
        sides = lambda: ended(*run, "overwrite=true"), lambda: ended("-c", "import torch, transformers.models.qwen2")
        return ratio_of(sides, min(3, repeats), used)


RATIOS: dict[str, Callable[[int], float]] = {
    "score": of_scoring("score"),
    "score_shared": of_scoring("score_shared"),
    "train": of_scoring("train"),
    "frozen": of_scoring("frozen"),
    "dgpo": of_updates("dgpo", "grpo"),
    "dgpo_kl": of_updates("dgpo_kl", "grpo_kl"),
    "step_memory": step_memory,
    "plan_memory": plan_memory,
    "sampling": sampling,
    "startup": startup,
}

if __name__ == "__main__":
    sys.exit(main())
