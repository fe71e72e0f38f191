"""`sweep.stop_when=decided`: a seed more for each side until every comparison is decided, or the budget is spent.

Sides are the jobs that differ in their seed alone, and are compared two and two. A look is taken when all jobs have
ended, on the seeds that every side has; `core.sequential` says what p-value decides at it, so that all looks together
have the error rate of one. Several pairs share alpha equally.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dgpo_cli.config.compose import job_folder
from dgpo_cli.config.overrides import parse
from dgpo_cli.core.comparison import compare_seeds, seeds_needed
from dgpo_cli.core.sequential import decides, look_levels
from dgpo_cli.errors import ConfigError
from dgpo_cli.reporting.sweep_view import what_differs
from dgpo_cli.sweeps.sweep_record import DONE, Job, Look, PairAtLook, SweepRecord

ALPHA = 0.05  # that of dgpo compare
SEED = "seed"


@dataclass(frozen=True)
class Side:
    """Jobs that differ in their seed alone. `configs` are those of any of them, before it is given to a job."""

    overrides: tuple[str, ...]  # without the seed
    configs: list[Any]


def seed_of(overrides: Sequence[str]) -> int | None:
    """The seed among a job's overrides."""
    for text in overrides:
        if text.partition("=")[0] == SEED:
            value = parse(text).value()
            return value if isinstance(value, int) else None
    return None


def side_of(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(text for text in overrides if text.partition("=")[0] != SEED))


class Growth:
    """Adds jobs to a sweep. `configs` are those of its jobs by number, to which it adds as well."""

    def __init__(self, record: SweepRecord, configs: dict[int, list[Any]], most: int, places: int = 1) -> None:
        """places: jobs that run at once, so that none is idle while there are seeds to add.

        Raises:
            ConfigError: the sweep has nothing to compare, so few seeds can decide nothing, or it has looked before
                with another budget.
        """
        self.record, self.configs, self.most = record, configs, most
        self.sides: dict[tuple[str, ...], Side] = {}
        for job in record.jobs:
            key = side_of(job.overrides)
            if job.number in configs and key not in self.sides:
                self.sides[key] = Side(key, copy.deepcopy(configs[job.number]))
        self.pairs = list(combinations(self.sides, 2))
        if not self.pairs or any(seed_of(job.overrides) is None for job in record.jobs):
            hint = "dgpo train -m algo=grpo,dgpo seed=0,1,2,3 sweep.stop_when=decided"
            raise ConfigError("sweep.stop_when: expected a sweep over seed= and something that is compared", hint)
        needed = seeds_needed(ALPHA, len(self.pairs))
        if most < needed:
            hint = f"sweep.max_seeds={needed} at least"
            raise ConfigError(f"sweep.max_seeds: {most} seeds a side can decide nothing", hint)
        if record.looks and record.max_seeds != most:
            hint = "a budget that changes after a look would change the error rate"
            raise ConfigError(f"sweep.max_seeds: {most}, and this sweep has looked with {record.max_seeds}", hint)
        record.max_seeds = most
        self.block = max(1, places // len(self.sides))  # seeds between two looks: the data have no say in it
        for job in record.jobs:  # those that were added before the sweep was cut off
            if job.number not in configs:
                self._configure(job)
        for seed in self._seeds():  # cut off while it grew
            for side in self.sides.values():
                if self._job(side.overrides, seed) is None:
                    self._add(side, seed)

    def propose(self, places: int, running: int) -> bool:
        """As `grow`, once all jobs have ended."""
        return not running and self.grow()

    def is_hopeless(self, job: Job) -> bool:
        """Never: each run counts."""
        return False

    def ended(self, job: Job) -> None:
        """The next look reads the record."""

    def grow(self) -> bool:
        """Look, and add a seed to every side unless that decides everything; whether there are new jobs."""
        seeds = self._seeds()
        common = [seed for seed in seeds if all(self._score(side, seed) is not None for side in self.sides)]
        looks = self.record.looks
        if len(common) > (looks[-1].runs if looks else 1):
            looks.append(self._look(common))
        if (looks and looks[-1].decided) or len(seeds) >= self.most:
            return False
        for seed in range(seeds[-1] + 1, seeds[-1] + 1 + min(self.block, self.most - len(seeds))):
            for side in self.sides.values():
                self._add(side, seed)
        return True

    def _seeds(self) -> list[int]:
        return sorted({seed for job in self.record.jobs if (seed := seed_of(job.overrides)) is not None})

    def _look(self, seeds: list[int]) -> Look:
        """The comparison of every pair on these seeds. What an earlier look has decided stays so."""
        runs = [look.runs for look in self.record.looks] + [len(seeds)]
        level = look_levels(runs, ALPHA / len(self.pairs), self.most)[-1]
        names = dict(zip(self.sides, what_differs(list(self.sides)), strict=True))
        before = self.record.looks[-1].pairs if self.record.looks else []
        found = []
        for number, (a, b) in enumerate(self.pairs):
            if before and before[number].verdict is not None:
                found.append(before[number])
                continue
            scores = [[self._known(side, seed) for seed in seeds] for side in (a, b)]
            result = compare_seeds(*scores)
            told = decides(result.p_value, level) and result.difference != 0
            verdict = ("better" if result.difference > 0 else "worse") if told else None
            found.append(PairAtLook(names[a], names[b], result.difference, result.p_value, level, len(seeds), verdict))
        return Look(len(seeds), found)

    def _score(self, side: tuple[str, ...], seed: int) -> float | None:
        """The accuracy of a side's job with this seed; None if it has not got one."""
        job = self._job(side, seed)
        return job.accuracy if job is not None and job.status == DONE else None

    def _job(self, side: tuple[str, ...], seed: int) -> Job | None:
        of = (job for job in self.record.jobs if side_of(job.overrides) == side and seed_of(job.overrides) == seed)
        return next(of, None)

    def _known(self, side: tuple[str, ...], seed: int) -> float:
        score = self._score(side, seed)
        assert score is not None
        return score

    def _add(self, side: Side, seed: int) -> None:
        number = max(job.number for job in self.record.jobs) + 1
        like = next(job for job in self.record.jobs if side_of(job.overrides) == side.overrides)
        overrides = [text if text.partition("=")[0] != SEED else f"{SEED}={seed}" for text in like.overrides]
        name = what_differs(list(self.sides))[list(self.sides).index(side.overrides)]
        job = Job(number, job_folder(number, ",".join([*name.split(), f"{SEED}={seed}"])), overrides)
        self.record.jobs.append(job)
        self._configure(job)

    def _configure(self, job: Job) -> None:
        configs = copy.deepcopy(self.sides[side_of(job.overrides)].configs)
        for config in configs:
            config.seed = seed_of(job.overrides)
        self.configs[job.number] = configs


def look_text(look: Look, most: int) -> list[str]:
    """What a look found, a line a pair."""
    lines = []
    for pair in look.pairs:
        said = f"{pair.b} {pair.verdict} than {pair.a}" if pair.verdict else f"{pair.b} and {pair.a}: undecided"
        numbers = f"{100 * pair.difference:+.1f} points, p {pair.p_value:.3g}, decided at {pair.level:.3g}"
        lines.append(f"{pair.runs} of at most {most} seeds a side: {said} ({numbers})")
    return lines
