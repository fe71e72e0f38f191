"""From samples to results.json: avg@k with its error bars, pass@k, maj@k, and what went wrong how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dgpo_cli.core.intervals import AvgAtK, MeanReward, avg_interval, mean_interval
from dgpo_cli.core.pass_at_k import maj_at_k, pass_at_k
from dgpo_cli.evaluation.sample_file import Record
from dgpo_cli.types import Unanswered

SCHEMA_VERSION = 1
FROM_SERVER = "server_"  # before the cause of a request that a server left unanswered; a grader has causes of its own


@dataclass(frozen=True)
class ProblemResult:
    """`correct` of `n` samples of a problem are right; None if the grader gives a number alone."""

    index: int
    id: str
    correct: int | None
    n: int
    reward: float | None  # mean over its samples; None of samples from before they had one


@dataclass(frozen=True)
class EvaluationResult:
    """results.json, field by field."""

    benchmark: str
    model: str
    n_problems: int
    n_samples: int
    avg_at_k: AvgAtK | None  # None, and no pass@k and maj@k, if the grader gives a number alone
    reward: MeanReward | None  # of a grader of right and wrong, 1 and 0; None of samples from before they had one
    pass_at_k: dict[int, float]
    maj_at_k: dict[int, float]  # empty where right samples have no extracted answer: nothing can vote
    truncated_fraction: float | None  # None where stored completions do not say how they ended
    no_answer_fraction: float
    errors: dict[str, int]  # by cause, no_answer among them; `server_...` has no completion and counts as wrong
    completion_tokens_mean: float | None
    seconds: float  # of the last session of an evaluation that was interrupted
    sampling: dict[str, float | int | None]
    problems: tuple[ProblemResult, ...]
    manifest: dict[str, Any]

    @property
    def unanswered(self) -> dict[str, int]:
        """Samples that a server gave no completion for, by cause: wrong in every number here, and missing in fact."""
        return {cause: count for cause, count in self.errors.items() if cause.startswith(FROM_SERVER)}

    def as_record(self) -> Record:
        """As results.json has it."""
        record = asdict(self)
        record["problems"] = [asdict(problem) for problem in self.problems]
        for name in ("pass_at_k", "maj_at_k"):
            record[name] = {str(k): value for k, value in record[name].items()}
        for name, value in (("avg_at_k", self.avg_at_k), ("reward", self.reward)):
            if value is not None and value.ci95 is not None:
                record[name]["ci95"] = list(value.ci95)
        return {"schema_version": SCHEMA_VERSION, **record}


def unanswered_record(one: Unanswered) -> Record:
    """A sample that counts as wrong: only what is summed up of one."""
    return {
        "index": one.request.prompt.problem.index,
        "problem_id": one.request.prompt.problem.problem_id,
        "sample": one.request.sample,
        "answer": None,
        "correct": False,
        "reward": None,
        "error": FROM_SERVER + one.cause,
        "finish_reason": None,
        "completion_tokens": None,
    }


def summarise(
    records: Iterable[Record],
    *,
    benchmark: str,
    model: str,
    pass_at: Sequence[int],
    seconds: float,
    sampling: Mapping[str, float | int | None],
    manifest: Mapping[str, Any],
) -> EvaluationResult:
    """The result of at least one sample, in any order.

    maj@k takes a problem's samples by their number. Raises ValueError for a k of `pass_at` that some problem has not
    enough samples for.
    """
    by_problem: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record["index"], record["sample"])):
        by_problem.setdefault(record["index"], []).append(record)
    samples = [record for problem in by_problem.values() for record in problem]
    says_right = not any(record["correct"] is None for record in samples)
    problems = tuple(
        ProblemResult(
            index,
            own[0]["problem_id"],
            sum(record["correct"] for record in own) if says_right else None,
            len(own),
            _mean(_rewards(own)) if _rewards(own) else None,
        )
        for index, own in by_problem.items()
    )
    votes = says_right and not any(record["correct"] and record["answer"] is None for record in samples)
    rewards = [found for own in by_problem.values() if (found := _rewards(own))]
    right, counts = [problem.correct or 0 for problem in problems], [problem.n for problem in problems]
    finished = [record["finish_reason"] for record in samples if record["finish_reason"] is not None]
    tokens = [record["completion_tokens"] for record in samples if record["completion_tokens"] is not None]
    errors = Counter(record["error"] for record in samples if record["error"] is not None)
    return EvaluationResult(
        benchmark=benchmark,
        model=model,
        n_problems=len(problems),
        n_samples=len(samples),
        avg_at_k=avg_interval(right, counts) if says_right else None,
        reward=mean_interval(rewards) if rewards else None,
        pass_at_k={
            k: _mean([pass_at_k(n, correct, k) for n, correct in zip(counts, right, strict=True)])
            for k in (pass_at if says_right else ())
        },
        maj_at_k={k: _mean([_majority_right(own, k) for own in by_problem.values()]) for k in pass_at if votes},
        truncated_fraction=finished.count("length") / len(finished) if finished else None,
        no_answer_fraction=errors["no_answer"] / len(samples),
        errors=dict(sorted(errors.items())),
        completion_tokens_mean=_mean(tokens) if tokens else None,
        seconds=round(seconds, 3),
        sampling=dict(sampling),
        problems=problems,
        manifest=dict(manifest),
    )


def _rewards(samples: list[Record]) -> list[float]:
    """Those that a sample has; one that a server left unanswered has none."""
    return [float(record["reward"]) for record in samples if record.get("reward") is not None]


def _majority_right(samples: list[Record], k: int) -> float:
    return maj_at_k([record["answer"] for record in samples], [record["correct"] for record in samples], k)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
