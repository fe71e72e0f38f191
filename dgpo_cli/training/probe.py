"""One full-length update on made-up rollouts, and the most memory that it took.

The real updater runs: scoring, credit, loss, backward, optimizer. Rollouts are random ids, advantages are +1 and -1.
Weights and moments are thrown away afterwards. Two short updates go first. One is of a small model, so that the memory
of the libraries themselves is not counted. The other is of the model itself, so that its moments stand as in a run.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.gating_needs import gates_noise
from dgpo_cli.errors import RunError
from dgpo_cli.planning.memory import Batch
from dgpo_cli.training.step import StepBatch
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
RETURNED_FROM = 65_536  # bytes of a block that goes back to the system when it is freed
SHORT = 4  # tokens of the completions of the update that goes first


@dataclass(frozen=True)
class Measured:
    """Bytes at the peak above what the process had before the model, how they were counted, and the time it took."""

    peak_bytes: int
    method: str
    seconds: float
    tokens: int


class PeakMemory:
    """The most memory since `reset`, above what stood when this was made: before the model is loaded."""

    def __init__(self, device: str) -> None:
        self.device = device
        gc.collect()
        if device == "cpu":
            self.method = "resident set of the process (VmHWM) above that before the model was loaded"
            give_freed_memory_back()
            self.baseline = _status("VmRSS")
        else:
            self.method = "torch.cuda.max_memory_allocated"
            self.baseline = torch.cuda.memory_allocated()

    def reset(self) -> None:
        if self.device == "cpu":
            try:
                Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
            except OSError as error:
                raise _no_count() from error
        else:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        if self.device == "cpu":
            return _status("VmHWM") - self.baseline
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - self.baseline


def give_freed_memory_back() -> None:
    """Let the C library return freed tensors to the system, now and from now on. Only glibc can be told so.

    Else the memory that it keeps for later would count as needed.
    """
    name = ctypes.util.find_library("c")
    library = ctypes.CDLL(name) if name else None
    if library is not None and hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.mallopt(M_MMAP_THRESHOLD, RETURNED_FROM)
        library.mallopt(M_TRIM_THRESHOLD, 0)
        library.malloc_trim(0)


def probed_settings(settings: OptimConfig) -> OptimConfig:
    """At most two updates, of a minibatch each: a third would hold nothing that the second does not."""
    updates = settings.minibatches * settings.epochs
    return replace(settings, minibatches=min(2, updates), epochs=1)


def warm_up(updater: Updater, *, lr: float) -> None:
    """A short update, after which everything is there that is loaded or made once."""
    give_freed_memory_back()
    rows = 2 * updater.settings.minibatches * updater.processes.size
    _update(updater, _made_up(updater, rows, SHORT + 1, SHORT), lr)


def run_probe(updater: Updater, memory: PeakMemory, batch: Batch, *, lr: float) -> Measured:
    """Update on micro-batches of `batch.rows` full-length rollouts each, and measure the peak.

    An update has two micro-batches if the run's have two or more: with the second, activations stand beside gradients.
    Of several processes, or teams of them, each gets so many.
    """
    warm_up(updater, lr=lr)
    memory.reset()
    minibatches = updater.settings.minibatches
    rows = batch.rows * min(2, batch.micro_batches) * minibatches * (updater.processes.size // batch.team)
    full = _made_up(updater, rows, batch.width, batch.counted)
    started = time.perf_counter()
    if gates_noise(updater.algorithm.gating):
        updater.noise_floor(full)
    _update(updater, full, lr)
    peak = memory.peak()
    return Measured(peak, memory.method, time.perf_counter() - started, rows * batch.width)


def _update(updater: Updater, batch: StepBatch, lr: float) -> None:
    result = updater.run(batch, lr=lr, noise_floor=0.0, guard=StopGuard(0.0))
    if not result.outcomes:
        raise RunError("the probe made no update", "this is a bug in dgpo")


def _made_up(updater: Updater, rows: int, width: int, completion: int) -> StepBatch:
    """Rollouts of random ids, in groups of one. Every other prompt is a token shorter, so that there is padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, updater.model.vocabulary_size, (rows, width), generator=generator)
    rollouts = []
    for row, sequence in enumerate(ids.tolist()):
        start = row % 2 if width - completion > 1 else 0
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", tuple(sequence[start : width - completion]))
        request = SampleRequest(prompt, 0, 0, row)
        rollouts.append(Rollout(request, tuple(sequence[width - completion :]), "", "length"))
    advantages = torch.tensor([1.0 if row % 2 else -1.0 for row in range(rows)])
    return StepBatch(rollouts, [completion] * rows, advantages, 1, list(range(rows)))


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024
    except (OSError, StopIteration) as error:
        raise _no_count() from error


def _no_count() -> RunError:
    return RunError("probe=true on a CPU: this system does not count a process's peak memory", "Linux does, or a GPU")
