"""What a person sees of an evaluation: how far it is while it runs, and its scores."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table

from dgpo_cli.evaluation.evaluate import Progress
from dgpo_cli.evaluation.results import EvaluationResult
from dgpo_cli.reporting.live_view import LiveView
from dgpo_cli.reporting.tables import (
    duration,
    interval,
    make_table,
    percent,
    reward_interval,
    sampling_text,
    score_text,
)
from dgpo_cli.terminal import say

SECONDS_BETWEEN_LINES = 10.0
COLUMNS = (
    "benchmark",
    "problems",
    "avg@k",
    "95%",
    "sampling error",
    "pass@k",
    "maj@k",
    "cut off",
    "no answer",
    "sampling",
)


class EvaluationView(LiveView):
    """Progress on stderr: a live table on a terminal, a plain line now and then elsewhere."""

    def __init__(self) -> None:
        super().__init__(transient=True, refresh_per_second=4)
        self._now: Progress | None = None
        self._last_line = time.monotonic()

    def progress(self, now: Progress) -> None:
        self._now = now
        if not self.is_live and now.done < now.total and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(_progress_line(now))

    def _render(self) -> RenderableType:
        return "" if self._now is None else _progress_table(self._now)


def results_table(results: Sequence[EvaluationResult]) -> Table:
    """One row a benchmark; the sampling preset stands beside every score. The reward too, if it is a function's."""
    if not any(_has_reward(result) for result in results):
        return make_table(COLUMNS, [_row(result) for result in results], title=f"model {results[0].model}")
    columns = (*COLUMNS[:2], "reward", "95%", *COLUMNS[2:])
    rows = [[*row[:2], *_reward(result), *row[2:]] for result in results for row in [_row(result)]]
    return make_table(columns, rows, title=f"model {results[0].model}")


def _has_reward(result: EvaluationResult) -> bool:
    return result.manifest.get("grader") == "function" and result.reward is not None


def _reward(result: EvaluationResult) -> list[str]:
    if result.reward is None or not _has_reward(result):
        return ["-", "-"]
    return [f"{result.reward.mean:.4g}", reward_interval(result.reward.ci95)]


def result_line(result: EvaluationResult) -> str:
    """The score in one line, for a log."""
    gap = _gap(result, ", ")
    return (
        f"{result.benchmark}: {score_text(result.as_record())} on "
        f"{result.n_problems} problems{gap}, {sampling_text(result.sampling)}, {duration(result.seconds)}"
    )


def _gap(result: EvaluationResult, before: str) -> str:
    count = sum(result.unanswered.values())
    return f"{before}{count} of {result.n_samples} unanswered" if count else ""


def unanswered_line(result: EvaluationResult) -> str:
    """How many samples a server left unanswered, why, and what they could change; for a result that has such."""
    count, average = sum(result.unanswered.values()), result.avg_at_k
    causes = ", ".join(f"{cause} {number}" for cause, number in result.unanswered.items())
    if average is None:
        return (
            f"{result.benchmark}: {count} of {result.n_samples} samples have no answer from the server ({causes}); "
            "the mean reward is that of the others"
        )
    most = percent(min(1.0, average.value + count / result.n_samples))
    return (
        f"{result.benchmark}: {count} of {result.n_samples} samples have no answer from the server ({causes}); "
        f"they count as wrong, also in the interval, and avg@{average.k} would be at most {most} with them"
    )


def _row(result: EvaluationResult) -> list[str]:
    average = result.avg_at_k
    return [
        result.benchmark,
        f"{result.n_problems} x {min(problem.n for problem in result.problems)}{_gap(result, chr(10))}",
        percent(None if average is None else average.value),
        interval(None if average is None else average.ci95),
        "-" if average is None or average.se_sampling is None else f"± {percent(average.se_sampling)}",
        _by_k(result.pass_at_k),
        _by_k(result.maj_at_k),
        percent(result.truncated_fraction),
        percent(result.no_answer_fraction),
        sampling_text(result.sampling),
    ]


def _by_k(values: dict[int, float]) -> str:
    return "\n".join(f"@{k} {percent(value)}" for k, value in values.items()) or "-"


def _progress_table(now: Progress) -> Table:
    average = now.average
    row = [now.benchmark, f"{now.done} of {now.total}", percent(average.value if average else None)]
    row += [interval(average.ci95 if average else None), duration(now.seconds), duration(now.seconds_left)]
    return make_table(("benchmark", "samples", "accuracy so far", "95%", "time", "left"), [row])


def _progress_line(now: Progress) -> str:
    average = now.average
    score = f", {percent(average.value)} {interval(average.ci95)} right so far" if average else ""
    return f"{now.benchmark}: {now.done} of {now.total} samples{score}, {duration(now.seconds_left)} left"
