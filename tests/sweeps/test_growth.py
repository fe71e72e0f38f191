"""Seeds added until a comparison is decided: what is looked at, what is added, when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.core.sequential import look_levels
from dgpo_cli.errors import ConfigError
from dgpo_cli.sweeps.growth import Growth, look_text
from dgpo_cli.sweeps.sweep_record import DONE, Job, SweepRecord


def sweep(seeds: int, sides: tuple[str, ...] = ("grpo", "dgpo")) -> tuple[SweepRecord, dict[int, list[Any]]]:
    jobs = [Job(-1, "", [f"algo={side}", f"seed={seed}", "steps=2"]) for side in sides for seed in range(seeds)]
    for number, job in enumerate(jobs):
        job.number, job.folder = number, str(number)
    return SweepRecord("train", [], jobs=jobs), {job.number: [TrainConfig()] for job in jobs}


def finish(record: SweepRecord, gain: float) -> None:
    """Give each job that has none an accuracy: those of dgpo are ahead by `gain`, all scatter a little."""
    for job in record.jobs:
        if job.status != DONE:
            seed = int(job.overrides[1].partition("=")[2])
            job.status, job.accuracy = DONE, 0.5 + 0.01 * (seed % 3) + gain * ("algo=dgpo" in job.overrides)


def test_a_seed_is_added_to_each_side_until_the_difference_is_decided() -> None:
    """4 against 4 all ahead has p 2/70, more than a look at half of the seeds may spend; 2/252 is not."""
    record, configs = sweep(4)
    growth = Growth(record, configs, most=8)
    finish(record, gain=0.2)
    assert growth.grow()
    assert not record.looks[0].decided
    added = record.jobs[8:]
    assert [job.overrides for job in added] == [["algo=grpo", "seed=4", "steps=2"], ["algo=dgpo", "seed=4", "steps=2"]]
    assert [job.folder for job in added] == ["8_algo-grpo_seed-4", "9_algo-dgpo_seed-4"]
    assert [configs[job.number][0].seed for job in added] == [4, 4]
    finish(record, gain=0.2)
    assert not growth.grow(), "2/252 decides"
    pair = record.looks[1].pairs[0]
    assert (pair.a, pair.b, pair.verdict, pair.runs) == ("algo=grpo", "algo=dgpo", "better", 5)
    assert pair.p_value == pytest.approx(2 / 252)
    assert pair.level == look_levels([4, 5], 0.05, 8)[1]
    assert look_text(record.looks[1], 8)[0].startswith(
        "5 of at most 8 seeds a side: algo=dgpo better than algo=grpo (+20.0"
    )


def test_without_a_difference_the_budget_ends_it() -> None:
    record, configs = sweep(4)
    growth = Growth(record, configs, most=6)
    finish(record, gain=0.0)
    while growth.grow():
        finish(record, gain=0.0)
    assert [look.runs for look in record.looks] == [4, 5, 6]
    assert not record.looks[-1].decided
    assert len(record.jobs) == 12


def test_several_pairs_share_alpha_and_what_is_decided_stays_so() -> None:
    record, configs = sweep(6, ("grpo", "dapo", "dgpo"))
    growth = Growth(record, configs, most=8)
    finish(record, gain=0.2)
    assert growth.grow(), "grpo and dapo are the same"
    first = record.looks[0].pairs
    assert [pair.verdict for pair in first] == [None, "better", "better"]
    assert {pair.level for pair in first} == {look_levels([6], 0.05 / 3, 8)[0]}
    finish(record, gain=-0.2)
    growth.grow()
    assert record.looks[1].pairs[1:] == first[1:]


def test_a_seed_that_failed_on_one_side_counts_on_none() -> None:
    record, configs = sweep(5)
    growth = Growth(record, configs, most=8)
    finish(record, gain=0.2)
    record.jobs[2].status, record.jobs[2].accuracy = "failed", None
    growth.grow()
    assert record.looks[0].runs == 4


def test_places_that_would_be_idle_take_seeds() -> None:
    record, configs = sweep(4)
    growth = Growth(record, configs, most=7, places=5)
    finish(record, gain=0.0)
    growth.grow()
    assert len(record.jobs) == 12, "two seeds for each of two sides"


def test_what_cannot_be_decided_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a sweep over seed= and something"):
        Growth(*sweep(4, ("grpo",)), most=8)
    with pytest.raises(ConfigError, match="3 seeds a side can decide nothing"):
        Growth(*sweep(3), most=3)
    record, configs = sweep(4)
    finish(record, gain=0.0)
    Growth(record, configs, most=8).grow()
    with pytest.raises(ConfigError, match="this sweep has looked with 8"):
        Growth(record, configs, most=9)


def test_a_sweep_that_was_cut_off_while_it_grew_gets_what_one_side_lacks() -> None:
    record, configs = sweep(4)
    record.jobs.append(Job(8, "8", ["algo=dgpo", "seed=4", "steps=2"], begun=True))
    Growth(record, configs, most=8)
    assert record.jobs[-1].overrides == ["algo=grpo", "seed=4", "steps=2"]
    assert {configs[number][0].seed for number in (8, 9)} == {4}
