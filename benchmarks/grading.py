"""What grading 10,000 ordinary completions costs: CPU seconds with the default worker set-up. Prints one JSON object.

    python benchmarks/grading.py                     10,000 completions of problems made up here, seven kinds
    python benchmarks/grading.py --completions 1000  the quick look

CPU time is this process's and its workers', start-up included; `slowest` names the slowest of one pair a kind.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from datetime import date

from dgpo_cli.rewards.robust import RobustGrader
from dgpo_cli.types import GradeRequest

REASONING = "Let us set up the equations and simplify step by step. We find $a + b = {0}$ and so on. "
KINDS = {  # gold, right answer, wrong answer
    "integer": ("{0}", "{0}", "{1}"),
    "fraction": (r"\frac{{{0}}}{{7}}", r"\dfrac{{{0}}}{{7}}", r"\frac{{{1}}}{{9}}"),
    "root": (r"{0}\sqrt{{3}}", r"\sqrt{{3}} \cdot {0}", r"{1}\sqrt{{3}}"),
    "pair": (r"({0},{1})", r"\left({0}, {1}\right)", r"({1},{0})"),
    "polynomial": (r"{0}x^2+{1}x", r"x({0}x+{1})", r"{1}x^2+{0}x"),
    "interval": (r"({0},\infty)", r"({0}, \infty)", r"[{0},\infty)"),
    "unit": (r"{0} \text{{ cm}}", r"{0}\text{{ cm}}", r"{1}\text{{ m}}"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=16, help="completions a problem")
    options = parser.parse_args()
    requests, expected = made_up(options.completions, options.samples)
    grader = RobustGrader(timeout_seconds=20)
    used, started = cpu_seconds(), time.monotonic()
    correct = [verdict.correct for verdict in grader.grade(requests)]
    wall = time.monotonic() - started
    slowest = max((timed(grader, kind), kind) for kind in KINDS)
    grader.close()
    print(
        json.dumps(
            {
                "date": date.today().isoformat(),
                "completions": len(requests),
                "cpu_seconds": round(cpu_seconds() - used, 1),
                "wall_seconds": round(wall, 1),
                "slowest": {"kind": slowest[1], "milliseconds": round(1000 * slowest[0], 1)},
                "as_expected": sum(one == other for one, other in zip(correct, expected, strict=True)),
            }
        )
    )


def made_up(count: int, samples: int) -> tuple[list[GradeRequest], list[bool]]:
    """Completions of a few hundred characters, half of them right, `samples` a problem."""
    draw = random.Random(0)
    requests: list[GradeRequest] = []
    expected: list[bool] = []
    while len(requests) < count:
        forms = KINDS[list(KINDS)[len(requests) // samples % len(KINDS)]]
        numbers = draw.sample(range(11, 1000), 2)
        gold, right, wrong = (form.format(*numbers) for form in forms)
        for _ in range(min(samples, count - len(requests))):
            is_right = draw.random() < 0.5
            answer = right if is_right else wrong
            text = (
                REASONING.format(draw.randrange(100)) * draw.randint(2, 12) + rf"So the answer is $\boxed{{{answer}}}$."
            )
            requests.append(GradeRequest("", text, gold))
            expected.append(is_right)
    return requests, expected


def timed(grader: RobustGrader, kind: str) -> float:
    """Seconds for one new pair of a kind, workers running."""
    gold, right, _ = (form.format(1013, 1019) for form in KINDS[kind])
    started = time.monotonic()
    grader.grade([GradeRequest("", rf"$\boxed{{{right}}}$", gold)])
    return time.monotonic() - started


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
