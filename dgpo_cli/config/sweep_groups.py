"""`sweep.*`: how the jobs of `-m` are run. It says nothing of what a job computes, so jobs are given the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dgpo_cli.config.groups import key

HOW = ("sweep.", "hydra.", "hydra/")
SWEEP_FILE = "sweep.json"  # in a sweep's folder: what was asked for, and how far each job is


class StopWhen(Enum):
    """When a sweep ends."""

    ended = "ended"
    decided = "decided"


@dataclass
class SweepConfig:
    """`sweep.*`: how the jobs of `dgpo train -m` and `dgpo eval -m` are run."""

    jobs_at_once: int | None = key(
        None,
        "jobs that run at the same time; null is one for each sweep.gpus_per_job GPUs, and on a CPU as many as cores "
        "and memory (of the plan) hold",
        "jobs",
    )
    gpus_per_job: int | None = key(
        None,
        "GPUs that each job has to itself (CUDA_VISIBLE_DEVICES); null is 1, or strategy.num_processes, or all of them "
        "for a strategy of several processes",
        "GPUs",
    )
    retries: int = key(0, "times that a job which failed is started again, from its last checkpoint", "times")
    compare: bool = key(
        False, "end with the verdicts of dgpo compare; its page and files are in compare/ of the sweep's folder"
    )
    stop_when: StopWhen = key(
        StopWhen.ended,
        "ended: when the listed jobs have | decided: seeds are added to each side until every comparison of final "
        "accuracies is decided, at the error rate of one look (alpha 0.05), or sweep.max_seeds is reached",
    )
    max_seeds: int = key(8, "sweep.stop_when=decided: most seeds a side", "seeds")


def says_how(override: str) -> bool:
    """Whether it is about how jobs are run, and not about what one computes: the same job may be run another way."""
    return override.lstrip("+").startswith(HOW)
