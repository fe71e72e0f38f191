"""Tokens a second of the in-process engine and of a vLLM server, against model size and batch.

    python benchmarks/engine_speed.py [--models tiny 13 100] [--batches 1 16 128] [--threads 1]

One prompt of 20 tokens a completion, 48 tokens each, none of which ends early; float32, greedy. Both engines have the
same weights and the same threads and take turns; the better of `--repeats` calls each, after one that is not counted.
Models but the bundled one are of random weights, named by their millions of weights. tests/install_vllm.sh makes the
environment that the server needs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from model_factory import save_plain_model

from dgpo_cli.bundled import bundled_path
from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import Dtype, StrategyConfig
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.engines import completed, make_engine
from dgpo_cli.engines.vllm.served import Served
from dgpo_cli.models.placement import prepare_device
from dgpo_cli.models.policy import Policy, load_policy
from dgpo_cli.types import Engine, Problem, Prompt, SampleRequest, Sampling

PROMPT, TOKENS = 20, 48
# By millions of weights: hidden size, layers.
SIZES = {"13": (320, 8), "100": (896, 8)}
VOCABULARY = 8_192
ENGINES = ("transformers", "vllm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", *SIZES], choices=["tiny", *SIZES])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    print("| model | batch | transformers, tokens/s | vllm, tokens/s | ratio |\n|---|---|---|---|---|", flush=True)
    for name in asked.models:
        with tempfile.TemporaryDirectory() as scratch, loaded(name, Path(scratch), asked.threads) as engines:
            for batch in asked.batches:
                own, server = (max(speeds) for speeds in speeds_of(engines, batch, asked.repeats))
                print(f"| {name} | {batch} | {own:,.0f} | {server:,.0f} | {server / own:.2f} |", flush=True)


@contextmanager
def loaded(name: str, scratch: Path, threads: int) -> Iterator[tuple[Engine, Engine]]:
    """Both engines with one model's weights."""
    folder = bundled_path("tiny") if name == "tiny" else scratch / "model"
    if name != "tiny":
        save_plain_model(folder, *SIZES[name], VOCABULARY)
    model, strategy = ModelConfig(path=str(folder)), StrategyConfig(threads=threads)
    loaded = load_policy(model, prepare_device(strategy, model))
    policy = Policy(loaded.model, frozenset())  # nothing ends a completion
    served = Served(model, Dtype.float32, trained=False, trainers=0, threads=threads)
    own = make_engine(EngineConfig(name="transformers", batch_size=10_000), policy=policy)
    with closing(own), closing(make_engine(EngineConfig(name="vllm"), policy=policy, served=served)) as server:
        yield own, server


def speeds_of(engines: tuple[Engine, Engine], batch: int, repeats: int) -> tuple[list[float], list[float]]:
    """Tokens a second of each engine's calls, which take turns."""
    requests, found = asked_for(batch), ([], [])  # type: tuple[list[SampleRequest], tuple[list[float], list[float]]]
    for number in range(repeats + 1):
        for engine, speeds in zip(engines, found, strict=True):
            started = time.perf_counter()
            drawn = completed(engine.generate(requests, Sampling(0.0, 1.0, TOKENS)))
            if number:
                speeds.append(sum(len(one.token_ids) for one in drawn) / (time.perf_counter() - started))
    return found


def asked_for(batch: int) -> list[SampleRequest]:
    """A prompt of its own for each completion, so that nothing is computed for several at once."""
    chance = random.Random(0)
    prompts = [tuple(chance.randrange(20, 90) for _ in range(PROMPT)) for _ in range(batch)]
    return [
        SampleRequest(Prompt(Problem(number, str(number), (), ""), "", ids), 0, seed=number)
        for number, ids in enumerate(prompts)
    ]


if __name__ == "__main__":
    main()
