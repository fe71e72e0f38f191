"""How many jobs run at once: by GPUs, by cores, by memory."""

from __future__ import annotations

import pytest

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.config.sweep_groups import SweepConfig
from dgpo_cli.errors import ConfigError
from dgpo_cli.sweeps.slots import cpu_slots, gpu_slots, visible_gpus

GB = 10**9
SINGLE, DDP = StrategyConfig(), StrategyConfig(name="ddp")


@pytest.fixture(scope="module")
def tiny() -> TrainConfig:
    config = compose("train", [])
    assert isinstance(config, TrainConfig)
    return config


def test_each_job_has_gpus_of_its_own() -> None:
    slots = gpu_slots(SweepConfig(), ["0", "1", "2"], [SINGLE], jobs=9)
    assert (slots.count, slots.devices) == (3, ("0", "1", "2"))
    assert [slots.environment(place) for place in (0, 2)] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "2"},
    ]
    two = gpu_slots(SweepConfig(gpus_per_job=2), ["4", "5", "6"], [SINGLE], jobs=9)
    assert (two.count, two.devices) == (1, ("4,5",)), "the third GPU is no place for a job of two"


def test_a_job_of_several_processes_takes_as_many_gpus() -> None:
    gpus = ["0", "1", "2", "3"]
    assert gpu_slots(SweepConfig(), gpus, [SINGLE, DDP], jobs=9).devices == ("0,1,2,3",)
    named = StrategyConfig(name="ddp", num_processes=2)
    assert gpu_slots(SweepConfig(), gpus, [named], jobs=9).devices == ("0,1", "2,3")
    with pytest.raises(ConfigError, match="8 GPUs a job, and there are 4"):
        gpu_slots(SweepConfig(gpus_per_job=8), gpus, [SINGLE], jobs=9)


def test_more_jobs_at_once_than_places_share_gpus() -> None:
    slots = gpu_slots(SweepConfig(jobs_at_once=4), ["0", "1"], [SINGLE], jobs=9)
    assert [slots.environment(place)["CUDA_VISIBLE_DEVICES"] for place in range(slots.count)] == ["0", "1", "0", "1"]


def test_gpus_that_are_hidden_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f")
    assert visible_gpus(2) == ["3", "GPU-5f"]


def test_on_a_cpu_cores_and_memory_bound_the_jobs(tiny: TrainConfig) -> None:
    """The bundled model names one thread, so 8 cores hold 8 jobs, and memory for 3 of its plan holds 3."""
    assert cpu_slots(SweepConfig(), [tiny] * 9, cores=8, free_bytes=100 * GB).count == 8
    assert cpu_slots(SweepConfig(), [tiny] * 2, cores=8, free_bytes=100 * GB).count == 2
    from dgpo_cli.commands.plan import plan_of

    one = plan_of(tiny).peak_bytes
    assert cpu_slots(SweepConfig(), [tiny] * 9, cores=8, free_bytes=int(3.5 * one)).count == 3
    assert cpu_slots(SweepConfig(), [tiny] * 9, cores=8, free_bytes=one // 2).count == 1, "one may try"


def test_jobs_that_name_no_threads_have_the_cores_alone_or_share_them(tiny: TrainConfig) -> None:
    free = compose("train", ["model.threads=null"])
    assert cpu_slots(SweepConfig(), [free] * 9, cores=8, free_bytes=100 * GB).count == 1
    slots = cpu_slots(SweepConfig(jobs_at_once=4), [free] * 9, cores=8, free_bytes=100 * GB)
    assert (slots.count, slots.threads) == (4, 2)
