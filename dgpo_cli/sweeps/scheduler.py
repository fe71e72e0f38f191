"""Runs the jobs of a sweep side by side, as many as there are places, and keeps sweep.json up to date.

Each job is a process. One that fails is started again if `sweep.retries` says so, and stops no other. A signal goes to
all that run; a job whose sweep is killed saves and ends by itself (`environment.end_with_sweep`), and is waited for if
the sweep is continued meanwhile.
"""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from dgpo_cli.errors import UsageError
from dgpo_cli.files import shown_path
from dgpo_cli.jobs import Stopped, accuracy
from dgpo_cli.reporting.sweep_view import JobLine, SweepView, figure, what_differs
from dgpo_cli.reporting.tables import clock
from dgpo_cli.sweeps import job_files
from dgpo_cli.sweeps.children import LOG, exit_code, last_words, log_size, start_job
from dgpo_cli.sweeps.growth import look_text
from dgpo_cli.sweeps.interruption import Interruption
from dgpo_cli.sweeps.slots import Slots
from dgpo_cli.sweeps.sources import Source
from dgpo_cli.sweeps.sweep_record import DONE, FAILED, INTERRUPTED, PRUNED, RUNNING, WAITING, Job, SweepRecord
from dgpo_cli.training.lock import Holder

POLL_SECONDS = 0.05
PRUNE_SECONDS = 0.5  # between two looks at evaluations


@dataclass
class Underway:
    """A job that runs."""

    job: Job
    process: subprocess.Popen[bytes]
    place: int
    log_from: int
    since: float = field(default_factory=time.monotonic)
    pruned: bool = False


@dataclass
class Scheduler:
    """The jobs of `record` in their folders below `folder`.

    configs: of those that have not begun, by number. environment: what Hydra sets for a job (hydra.job.env_set), too.
    """

    record: SweepRecord
    folder: Path
    configs: dict[int, list[Any]]
    slots: Slots
    retries: int = 0
    environment: dict[int, dict[str, str]] = field(default_factory=dict)
    steps: int | None = None
    interruption: Interruption = field(default_factory=Interruption)
    view: SweepView = field(default_factory=SweepView)
    source: Source | None = None  # of further jobs
    underway: list[Underway] = field(default_factory=list)
    _asked: float = 0.0
    _spent: list[float] = field(default_factory=list)  # seconds of the jobs that ended since the start

    def run(self) -> None:
        """Until every job has ended.

        Raises:
            Stopped: a signal came, and the jobs that ran have saved and ended.
        """
        for job in self.record.jobs:
            if job.status not in (DONE, PRUNED):
                job.status, job.attempts = WAITING, 0
        self.record.save(self.folder)
        self._await_orphans()
        with self.view:
            while self.interruption.signal_number is None:
                busy = self._fill() or self._propose()
                if not (busy or self.underway):
                    break
                self._look()
            while self.underway:
                self._look()
            self.view.show(self._lines(), now=True)
        if self.interruption.signal_number is not None:
            raise Stopped(self.interruption.signal_number)

    def _propose(self) -> bool:
        """Ask for more jobs while places are free; whether there are any."""
        free = self.slots.count - len(self.underway)
        if self.source is None or not free:
            return False
        looks = len(self.record.looks)
        more = self.source.propose(free, len(self.underway))
        self.record.save(self.folder)
        for look in self.record.looks[looks:]:
            for line in look_text(look, self.record.max_seeds or 0):
                self.view.note(line)
        return more

    def _await_orphans(self) -> None:
        """Jobs of a sweep that was killed save and end by themselves; until then their folders are theirs."""
        for job in self.record.jobs:
            if job.status == WAITING and _is_at_work(job.process):
                self.view.note(
                    f"note: waiting for job {job.number + 1}, which saves since its sweep is gone: {job.process}"
                )
                while _is_at_work(job.process) and self.interruption.signal_number is None:
                    time.sleep(POLL_SECONDS)
            if job.status == WAITING and job.begun and job_files.is_done(self.record.command, self.folder / job.folder):
                self._end(job, 0)

    def _fill(self) -> bool:
        """Start waiting jobs in the places that are free; whether any was started."""
        waiting = [job for job in self.record.jobs if job.status == WAITING]
        taken = {one.place for one in self.underway}
        places = [place for place in range(self.slots.count) if place not in taken]
        for job, place in zip(waiting, places, strict=False):
            self._start(job, place)
        return bool(waiting and places)

    def _start(self, job: Job, place: int) -> None:
        folder, command = self.folder / job.folder, self.record.command
        configs = job_files.next_configs(command, folder) if job.begun else None
        if configs is None:
            configs = [self._with_threads(one) for one in job_files.first_configs(self.configs[job.number], folder)]
        goes_on = ", going on with it" if getattr(configs[0], "resume", None) else ""
        job_files.write(folder, job.number, command, job.overrides, configs)
        job.status, job.exit_code, job.begun, job.attempts = RUNNING, None, True, job.attempts + 1
        self.record.save(self.folder)
        environment = {**self.environment.get(job.number, {}), **self.slots.environment(place)}
        log_from = log_size(folder)
        process = self.interruption.start(lambda: start_job(command, folder, environment))
        job.process = _holder(process.pid)
        self.underway.append(Underway(job, process, place, log_from))
        self.record.save(self.folder)
        if not self.view.is_live:
            self.view.note(f"{self._name(job)}: {self._differs(job)} -> {shown_path(folder)}{goes_on}")

    def _with_threads(self, config: Any) -> Any:
        """Jobs side by side share the cores; what a job was given is stored, so that it goes on with the same."""
        if self.slots.threads is None or config.strategy.threads or config.model.threads:
            return config
        return replace(config, strategy=replace(config.strategy, threads=self.slots.threads))

    def _look(self) -> None:
        """Note the jobs that have ended, after a moment."""
        time.sleep(POLL_SECONDS)
        for one in [one for one in self.underway if one.process.poll() is not None]:
            self.underway.remove(one)
            self.interruption.children.remove(one.process)
            one.job.seconds += time.monotonic() - one.since
            self._spent.append(time.monotonic() - one.since)
            self._end(one.job, exit_code(one.process.returncode), one.log_from, pruned=one.pruned)
        self._prune()
        self.view.show(self._lines())

    def _prune(self) -> None:
        """End the jobs that a search expects nothing of; they save."""
        if self.source is None or time.monotonic() - self._asked < PRUNE_SECONDS:
            return
        self._asked = time.monotonic()
        for one in self.underway:
            if not one.pruned and self.source.is_hopeless(one.job):
                one.pruned = True
                one.process.terminate()

    def _end(self, job: Job, code: int, log_from: int = 0, *, pruned: bool = False) -> None:
        folder = self.folder / job.folder
        job.exit_code = code
        again = False
        if code == 0:
            job.status, job.accuracy = DONE, accuracy(folder)
        elif pruned and code == 128 + signal.SIGTERM:
            job.status, job.accuracy = PRUNED, accuracy(folder)
        elif self.interruption.signal_number is not None:
            job.status = INTERRUPTED
        else:
            again = job.attempts <= self.retries and code != UsageError.exit_code  # what is refused stays refused
            job.status = WAITING if again else FAILED
        if self.source is not None and not again:
            self.source.ended(job)
        job_files.note_exit(folder, code)
        self.record.save(self.folder)
        self._say_end(job, code, log_from, again=again)

    def _say_end(self, job: Job, code: int, log_from: int, *, again: bool) -> None:
        ended = sum(one.ended for one in self.record.jobs)
        name = self._name(job)
        where = shown_path(self.folder / job.folder / LOG)
        if code and job.status != PRUNED:
            what = "started again" if again else job.status
            self.view.note(f"{name}: {what}, exit {code}; all that it said: {where}")
            for line in last_words(self.folder / job.folder, log_from):
                self.view.note(line)
        elif not self.view.is_live:
            left = len(self.record.jobs) - ended
            rest = (
                f", {clock(sum(self._spent) / len(self._spent) * left / self.slots.count)} left"
                if left and self._spent
                else ""
            )
            took = f" in {clock(job.seconds)}" if job.seconds else ""
            self.view.note(f"{name}: {job.status}{took}, accuracy {figure(job.accuracy)} ({ended} ended{rest})")

    def _name(self, job: Job) -> str:
        return f"job {job.number + 1} of {len(self.record.jobs)}"

    def _differs(self, job: Job) -> str:
        jobs = self.record.jobs
        return what_differs([one.overrides for one in jobs])[jobs.index(job)]

    def _lines(self) -> list[JobLine]:
        jobs = self.record.jobs
        differs = what_differs([job.overrides for job in jobs])
        return [
            JobLine(job.number, text, job.status, self.folder / job.folder, self.steps, job.accuracy, job.seconds)
            for job, text in zip(jobs, differs, strict=True)
        ]


def _holder(pid: int) -> Holder | None:
    """The process as another one can recognise it; None of one that is gone already."""
    try:
        return replace(Holder.this_process(), pid=pid, started=psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _is_at_work(process: Holder | None) -> bool:
    """Whether that very process runs here; one that has ended and that nobody has asked after does not."""
    if process is None or not process.lives_here():
        return False
    try:
        return bool(psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
