"""Real benchmark files in the schemas of their sources: they load, their golds reduce, and their own golds are right.

The files are third-party data and not part of the repository: DGPO_DATA names their folder, or ../shared/data beside
the checkout holds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgpo_cli.config.compose import compose
from dgpo_cli.core.answers import integer_of
from dgpo_cli.data.problems import ProblemSet, load_problem_set
from dgpo_cli.rewards.robust import RobustGrader
from dgpo_cli.types import GradeRequest

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("DGPO_DATA", CHECKOUT.parent / "shared" / "data"))
pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no benchmark files in {FOLDER} (DGPO_DATA=FOLDER)"),
]

BENCHMARKS = [  # benchmark, file, rows, rows whose gold nothing parses
    ("aime2024", "aime2024.dapo_unique30.jsonl", 30, []),
    ("aime2024", "aime2024.evalchemy.jsonl", 30, []),
    ("aime2024", "aime2024.qwen2.5-math.jsonl", 30, []),
    ("aime2024", "aime2024.ttrl.jsonl", 30, []),
    ("aime2025", "aime2025.evalchemy.jsonl", 30, []),
    ("aime2025", "aime2025.one-shot-rlvr.jsonl", 30, []),
    ("aime2025", "aime2025.spurious-rewards.jsonl", 30, []),
    ("amc2023", "amc2023.evalchemy.jsonl", 40, []),
    ("amc2023", "amc2023.qwen2.5-math.jsonl", 40, []),
    ("math500", "math500.jsonl", 500, []),
    ("gsm8k", "gsm8k_test.jsonl", 1319, []),
    ("minerva", "minerva_math.jsonl", 272, [261]),
    ("olympiadbench", "olympiadbench_math_oe_to_en.jsonl", 675, [73, 96]),
]
INTEGERS = ("aime2024", "aime2025", "amc2023", "gsm8k")


def load(benchmark: str, file: str) -> ProblemSet:
    config = compose("eval", [f"benchmark={benchmark}"]).benchmark
    return load_problem_set(
        str(FOLDER / file), prompt_key=config.prompt_key, answer_key=config.answer_key, group="benchmark"
    )


@pytest.fixture(scope="module")
def grader() -> Iterator[RobustGrader]:
    pytest.importorskip("math_verify")
    grader = RobustGrader(timeout_seconds=20)
    yield grader
    grader.close()


@pytest.mark.parametrize(("benchmark", "file", "rows", "unparsed"), BENCHMARKS)
def test_own_golds_are_right_and_changed_ones_wrong(
    grader: RobustGrader, benchmark: str, file: str, rows: int, unparsed: list[int]
) -> None:
    loaded = load(benchmark, file)
    golds = [problem.gold for problem in loaded.problems]
    assert (loaded.rows, len(golds)) == (rows, rows)
    assert [index for index, problem in enumerate(grader.gold_problems(golds)) if problem is not None] == unparsed
    boxed = [GradeRequest("", rf"Thus $\boxed{{{gold}}}$.", gold) for gold in golds]
    assert [verdict.correct for verdict in grader.grade(boxed)] == [True] * rows
    checked = [
        gold for index, gold in enumerate(golds) if integer_of(gold) is not None or index % 3 == 0
    ]  # algebra is slow
    changed = [GradeRequest("", rf"Thus $\boxed{{{changed_gold(gold)}}}$.", gold) for gold in checked]
    assert not any(verdict.correct for verdict in grader.grade(changed))


def changed_gold(gold: str) -> str:
    """One more of a number or expression; something else of a list or equation."""
    if (integer := integer_of(gold)) is not None:
        return str(int(integer) + 1)
    return "17" if "=" in gold or "," in gold else rf"{gold} + 1"


@pytest.mark.parametrize(("benchmark", "file"), [row[:2] for row in BENCHMARKS if row[0] in INTEGERS])
def test_integer_benchmarks_have_plain_integer_golds(benchmark: str, file: str) -> None:
    for problem in load(benchmark, file).problems:
        assert problem.gold == integer_of(problem.gold)
        assert not benchmark.startswith("aime") or 0 <= int(problem.gold) <= 999


def test_copies_of_a_benchmark_agree_on_the_golds_after_reduction() -> None:
    copies = [load("aime2025", file) for name, file, *_ in BENCHMARKS if name == "aime2025"]
    assert len({tuple(sorted(problem.gold for problem in copy.problems)) for copy in copies}) == 1
    copies = [load("aime2024", file) for name, file, *_ in BENCHMARKS if name == "aime2024"]
    assert len({tuple(sorted(problem.gold for problem in copy.problems)) for copy in copies}) == 1


@pytest.mark.parametrize(
    ("file", "rows", "kept"),
    [("dapo_math_17k.sample3000.jsonl", 3000, 2949), ("dapo_processed_schema_sample.jsonl", 2, 2)],
)
def test_dapo_math_loads_in_both_schemas_and_repeated_prompts_are_counted(file: str, rows: int, kept: int) -> None:
    data = compose("train", ["data=dapo_math_17k"]).data
    loaded = load_problem_set(
        str(FOLDER / file), prompt_key=data.prompt_key, answer_key=data.answer_key, deduplicate=True
    )
    assert (loaded.rows, len(loaded.problems), loaded.duplicates) == (rows, kept, rows - kept)
    assert all(integer_of(problem.gold) for problem in loaded.problems)
