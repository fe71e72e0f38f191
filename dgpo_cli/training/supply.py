"""Who draws the rollouts of a step, and when: before it, or one step ahead (rollout.lag=1).

With the lag, what step t+1 trains on is drawn beside the updates of step t, by the weights from before them. If the
engine has devices of its own, a thread of the main process draws while all processes train. If it shares them, it draws
first. The weights that draw are the same in both cases, so the numbers are.

No draw is under way outside of a step: whoever loads weights into the engine or saves finds it idle. An evaluation may
be done in the same thread (eval.overlap), after the draw: it holds the same weights.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from dgpo_cli.crew import Crew
from dgpo_cli.traffic import SAMPLES
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.correction import UNCORRECTED, Correction
from dgpo_cli.training.handed_out import HandedOut
from dgpo_cli.training.stopping import StopGuard, UnfinishedStep
from dgpo_cli.types import Engine

T = TypeVar("T")
ASK_SECONDS = 0.2  # between looks at a signal while a draw is waited for
CLOSE_SECONDS = 10.0  # that a draw gets to end, once its engine is closed


class Background(Generic[T]):
    """One piece of work at a time beside the main thread. At the end it is closed after what the work uses."""

    # Not a pool of concurrent.futures: the interpreter joins its threads at exit, so a draw that hangs would keep a
    # stopped run alive.

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._result: T | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], T]) -> None:
        self._thread = threading.Thread(target=self._run, args=(work,), name="rollouts", daemon=True)
        self._thread.start()

    def busy(self, seconds: float) -> bool:
        """Whether work is still under way after at most so many seconds."""
        if self._thread is None:
            return False
        self._thread.join(seconds)
        return self._thread.is_alive()

    def result(self) -> T | None:
        """What the work gave, once; None if there was none. Raises what it raised."""
        if self._thread is not None:
            self._thread.join()
        result, error = self._result, self._error
        self._thread = self._result = self._error = None
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Wait for the work a moment; whatever it still gives or raises is nobody's business."""
        self.busy(CLOSE_SECONDS)

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._result = work()
        except BaseException as error:  # for the main thread to raise
            self._error = error


class Supply:
    """The rollouts of one step after another. All processes of a run call it together."""

    def __init__(
        self,
        collect: Callable[[int, int], Collected],
        engine: Engine,
        crew: Crew,
        guard: StopGuard,
        background: Background[Collected | None],
        *,
        lag: int,
        steps: int,
        ahead: Collected | None = None,
        off_policy: Correction = UNCORRECTED,
    ) -> None:
        """collect: a step, its first draw; in the main process. ahead: what a checkpoint holds of the step after it.

        off_policy: the correction of the run, which reads the log-probs that rollouts bring.
        """
        self.ahead = ahead  # in the main process: what the step after the last finished one trains on
        self._next: Collected | None = None  # drawn beside the step that is under way
        self._collect, self._engine, self._crew, self._guard = collect, engine, crew, guard
        self._background, self._lag, self._steps, self._off_policy = background, lag, steps, off_policy
        self._beside = False  # whether the engine is at work beside the step that is under way
        self._waited = self._drew = 0.0

    def take(self, step: int, draw: int) -> Collected:
        """What `step` trains on, in every process. `draw`: its first prompt, if nothing was drawn ahead."""
        self._waited = self._drew = 0.0
        with self._waiting():
            return self._crew.on_main(
                lambda: self.ahead or self._collected(step, draw),
                SAMPLES,
                told=lambda collected: self._handed_out(step, collected),
                heard=HandedOut.collected,
            )

    def begin(self, step: int, draw: int, evaluate: Callable[[], None] | None = None) -> None:
        """With a lag, draw what `step`, the next one, trains on; the engine has the weights from before this step.

        What step `step - 1` trains on is kept until `finish`: if it is abandoned, a checkpoint needs it.
        evaluate: to be done beside this step, by an engine with devices of its own; the main process calls it.
        """
        draws = bool(self._lag) and step <= self._steps
        if draws and self._engine.facts.shares_devices:
            with self._waiting():
                self._crew.on_main(lambda: self._keep(self._collected(step, draw)))
            return
        self._beside = draws or evaluate is not None
        if self._beside and self._crew.processes.main:
            self._background.start(lambda: self._work(step if draws else None, draw, evaluate))

    def finish(self) -> None:
        """After the updates of a step: wait for what is done beside it. What was drawn is then ahead.

        Raises:
            UnfinishedStep: a signal came, and the draw is not done within its grace time. The weights that draw are
                gone, so the step can't be saved without it.
            DgpoError: whatever the draw or the evaluation raised, in the main process.
        """
        if self._beside:
            with self._waiting():
                while self._crew.processes.highest(int(self._background.busy(ASK_SECONDS)))[0]:
                    if not self._guard.may_go_on(0.0):
                        raise UnfinishedStep
            self._keep(self._background.result())
            self._beside = False
        self.ahead, self._next = self._next, None

    def idle(self, seconds: float) -> dict[str, float]:
        """Of a step of so many seconds: how long the trainer waited for rollouts, and how long the engine drew none."""
        return {"seconds/idle_trainer": self._waited, "seconds/idle_engine": max(0.0, seconds - self._drew)}

    def _handed_out(self, step: int, collected: Collected) -> HandedOut:
        drawn_by_another = any(rollout.policy_step not in (None, step - 1) for rollout in collected.rollouts)
        return HandedOut.of(collected, logprobs=self._off_policy.is_due(drawn_by_another=drawn_by_another))

    def _collected(self, step: int, draw: int) -> Collected:
        collected = self._collect(step, draw)
        self._drew += collected.rollout_seconds
        return collected

    def _work(self, step: int | None, draw: int, evaluate: Callable[[], None] | None) -> Collected | None:
        """Beside a step, in a thread of the main process: the draw of `step`, then an evaluation."""
        collected = None if step is None else self._collected(step, draw)
        if evaluate is not None:
            started = time.perf_counter()
            evaluate()
            self._drew += time.perf_counter() - started
        return collected

    def _keep(self, collected: Collected | None) -> None:
        self._next = collected

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - started
