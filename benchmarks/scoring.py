"""What scoring and the training pass cost, as ratios to what no method can avoid. Prints one JSON object.

    python benchmarks/scoring.py                                   every row: about half an hour on one core
    python benchmarks/scoring.py --tokens 512 --dtypes float32     the quick look

Every figure comes from a fresh process with random weights of Qwen2.5-0.5B's head (V = 151,936, D = 896) and is keyed
by "N dtype threads". A ratio alternates its two sides in one process and divides the fastest runs: CPU time on one
thread, wall time on several.

    score_over_floor          token_stats with two heads / the two float32 products alone, in the same tiles
    score_shared_over_floor   token_stats with one head for both models / the same
    train_over_naive          token_logprobs forward + backward, trained head / plain autograd
    frozen_over_floor         the same with a frozen head / one forward product and one product for d hidden
    score_peak_mib            memory that token_stats adds to its inputs, at the peak; naive_peak_mib: [N, V] tensors
    trl_*                     trl's chunked functions on the same inputs and bases, when trl is installed
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path

MEASURES = ("score", "score_shared", "train", "frozen", "score_peak", "naive_peak", "trl_logprob", "trl_divergence")
KEYS = {
    "score": "score_over_floor",
    "score_shared": "score_shared_over_floor",
    "train": "train_over_naive",
    "frozen": "frozen_over_floor",
    "score_peak": "score_peak_mib",
    "naive_peak": "naive_peak_mib",
    "trl_logprob": "trl_logprob_train_over_naive",
    "trl_divergence": "trl_divergence_over_floor",
}
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--measures", nargs="+", default=list(MEASURES), choices=MEASURES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_measure(**json.loads(options.child))))
        return
    results: dict[str, dict[str, float | None]] = {}
    for measure in options.measures:
        if measure.startswith("trl") and find_spec("trl") is None:
            continue
        rows = results.setdefault(KEYS[measure], {})
        for threads in options.threads[:1] if measure.endswith("peak") else options.threads:
            for dtype in options.dtypes:
                for tokens in options.tokens:
                    case = {"measure": measure, "tokens": tokens, "dtype": dtype, "threads": threads}
                    case |= {"repeats": options.repeats, "vocab_size": options.vocab_size, "width": options.width}
                    key = f"{tokens} {dtype} {threads}"
                    rows[key] = in_fresh_process(case)
                    print(f"{KEYS[measure]}  {key}: {rows[key]}", file=sys.stderr, flush=True)
    about = {"date": date.today().isoformat(), "vocab_size": options.vocab_size, "width": options.width}
    print(json.dumps(about | results, indent=2))


def in_fresh_process(case: dict[str, object]) -> float | None:
    threads = str(case["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figure = json.loads(run.stdout)
    return None if figure is None else round(float(figure), 3)


def run_measure(
    measure: str, tokens: int, dtype: str, threads: int, repeats: int, vocab_size: int, width: int
) -> float | None:
    """A ratio of times or a peak in MiB; None where the plain way does not fit this machine's memory."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if measure in ("naive_peak", "train", "trl_logprob") and available_bytes() < 9 * tokens * vocab_size * 4 + 3 * GIB:
        return None
    kind = getattr(torch, dtype)
    hidden = torch.randn(tokens, width)
    ref_hidden = (hidden + 0.01 * torch.randn(tokens, width)).to(kind)
    weight = 0.05 * torch.randn(vocab_size, width)
    ref_weight = (weight + 0.0005 * torch.randn(vocab_size, width)).to(kind) if "train" not in measure else weight
    hidden, weight = hidden.to(kind), weight.to(kind)
    targets = torch.randint(0, vocab_size, (tokens,))
    bench = Bench(hidden, weight, ref_hidden, ref_weight, targets)
    if measure.endswith("peak"):
        return added_mib(bench.score if measure == "score_peak" else bench.naive_score)
    fast, base = bench.sides(measure)
    clock = time.process_time if threads == 1 else time.perf_counter
    times = [(timed(base, clock), timed(fast, clock)) for _ in range(repeats)]
    return min(fast for _, fast in times) / min(base for base, _ in times)


class Bench:
    """The two sides of every ratio over one set of inputs."""

    def __init__(self, hidden, weight, ref_hidden, ref_weight, targets) -> None:  # type: ignore[no-untyped-def]
        self.hidden, self.weight, self.targets = hidden, weight, targets
        self.ref_hidden, self.ref_weight = ref_hidden, ref_weight

    def sides(self, measure: str) -> tuple[Callable[[], object], Callable[[], object]]:
        return {
            "score": lambda: (self.score, self.two_products()),
            "score_shared": lambda: (self.score_shared, self.two_products()),
            "train": lambda: (self.train, self.naive_train),
            "frozen": lambda: (self.train_frozen, self.forward_and_hidden_products()),
            "trl_logprob": lambda: (self.trl_train, self.naive_train),
            "trl_divergence": lambda: (self.trl_divergence, self.two_products()),
        }[measure]()

    # --- ours ---

    def score(self) -> None:
        from dgpo_cli.core.token_stats import Head, token_stats

        heads = Head(self.weight), Head(self.ref_weight)
        token_stats(self.hidden, heads[0], self.targets, ref_hidden=self.ref_hidden, ref_head=heads[1])

    def score_shared(self) -> None:
        from dgpo_cli.core.token_stats import Head, token_stats

        token_stats(self.hidden, Head(self.weight), self.targets, ref_hidden=self.ref_hidden)

    def train(self, trained: bool = True) -> None:
        from dgpo_cli.core.token_stats import Head, token_logprobs

        hidden = self.hidden.detach().requires_grad_()
        weight = self.weight.detach().requires_grad_(trained)
        token_logprobs(hidden, Head(weight), self.targets).sum().backward()

    def train_frozen(self) -> None:
        self.train(trained=False)

    # --- what they are measured against ---

    def two_products(self) -> Callable[[], object]:
        """Both heads' float32 products in the tiles of scoring, into one buffer, from operands cast beforehand."""
        import torch

        from dgpo_cli.core.output_head import tile_shape

        pairs = [(self.hidden.float(), self.weight.float()), (self.ref_hidden.float(), self.ref_weight.float())]
        ids, tokens = tile_shape(len(self.weight), self.weight.device)
        buffer = torch.empty(ids * tokens)

        def products() -> None:
            for weights in zip(*(weight.split(ids) for _, weight in pairs), strict=True):
                for hiddens in zip(*(hidden.split(tokens) for hidden, _ in pairs), strict=True):
                    for weight, hidden in zip(weights, hiddens, strict=True):
                        out = buffer[: len(weight) * len(hidden)].view(len(weight), len(hidden))
                        torch.mm(weight, hidden.T, out=out)

        return products

    def forward_and_hidden_products(self) -> Callable[[], object]:
        """weight @ hidden.T, and its tile's product with the weight summed into [N, D]."""
        import torch

        from dgpo_cli.core.output_head import tile_shape

        hidden, weight = self.hidden.float(), self.weight.float()
        ids, tokens = tile_shape(len(weight), weight.device)
        buffer, total = torch.empty(ids * tokens), torch.zeros_like(hidden)

        def products() -> None:
            for tile in weight.split(ids):
                for chunk, part in zip(hidden.split(tokens), total.split(tokens), strict=True):
                    out = buffer[: len(tile) * len(chunk)].view(len(tile), len(chunk))
                    torch.mm(tile, chunk.T, out=out)
                    part.addmm_(out.T, tile)

        return products

    def naive_train(self) -> None:
        """Plain autograd in float32, [N, V] logits and log-probs."""
        import torch

        hidden = self.hidden.detach().requires_grad_()
        weight = self.weight.detach().requires_grad_()
        logprobs = torch.log_softmax(hidden.float() @ weight.float().T, dim=-1)
        logprobs.gather(1, self.targets[:, None]).sum().backward()

    def naive_score(self) -> None:
        """[N, V] tensors in float32 for both models, their log-probs, entropy and distance."""
        import torch

        with torch.no_grad():
            logits, ref_logits = self.hidden.float() @ self.weight.float().T, self.ref_hidden @ self.ref_weight.T
            logprobs, ref_logprobs = torch.log_softmax(logits, -1), torch.log_softmax(ref_logits.float(), -1)
            logprobs.gather(1, self.targets[:, None]), ref_logprobs.gather(1, self.targets[:, None])
            probabilities = logprobs.exp()
            (probabilities * logprobs).sum(-1)
            1 - (probabilities * ref_logprobs.exp()).sqrt().sum(-1)

    # --- trl, when it is installed ---

    def trl_train(self) -> None:
        from trl.kernels import ChunkedLogProbFunction  # type: ignore[import-not-found]

        hidden = self.hidden.detach().requires_grad_()
        weight = self.weight.detach().requires_grad_()
        ChunkedLogProbFunction.apply(hidden, weight, None, self.targets, 1.0, 8192, None, 1.0, ())[0].sum().backward()

    def trl_divergence(self) -> None:
        import torch
        from trl.kernels.chunked_divergence import ChunkedDivergenceFunction  # type: ignore[import-not-found]

        with torch.no_grad():
            args = self.hidden, self.weight, None, self.ref_hidden, self.ref_weight, None, 1.0
            ChunkedDivergenceFunction.apply(*args)


def timed(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def added_mib(run: Callable[[], object]) -> float:
    """Peak resident memory of `run` over what was resident before it (Linux)."""
    import torch

    torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # the products' own threads and buffers are no part of it
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status_kib("VmRSS")
    run()
    return (status_kib("VmHWM") - before) / 1024


def status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


if __name__ == "__main__":
    main()
