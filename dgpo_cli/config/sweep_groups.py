"""`sweep.*`: how the jobs of `-m` are run. It says nothing of what a job computes, so jobs are given the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from dgpo_cli.config.groups import key


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
