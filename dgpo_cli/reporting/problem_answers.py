"""What both sides of a pair answered to a problem: its text, the answers with their counts, a completion of each side.

Read from the samples.jsonl of the evaluations that were compared; of a problem that is not asked about nothing is kept.
All text leaves here with control and direction characters as their escapes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgpo_cli.reporting.run_files import Json
from dgpo_cli.reporting.runs import Key
from dgpo_cli.reporting.sides import Side
from dgpo_cli.terminal import BLOCK, visible

MOST_ANSWERS = 6  # different ones of a side
LONGEST_ANSWER = 120  # characters
TEXT_OF_ALL = 6_000_000  # characters of all completions on a page
SHORTEST, LONGEST = 300, 2000  # characters of a text, by how many there are


@dataclass
class Answers:
    """Of one side to one problem."""

    prompt: str = ""
    gold: str | None = None
    counts: Counter[tuple[str | None, bool]] = field(default_factory=Counter)  # answer, whether it is right
    completions: dict[bool, str] = field(default_factory=dict)  # the first right and the first wrong one


def answers_of(side: Side, wanted: Collection[Key]) -> dict[Key, Answers]:
    """By problem, over all runs of the side; nothing of evaluations whose samples are not kept."""
    found: dict[Key, Answers] = {}
    for run in side.runs:
        folder = run.evaluation.folder if run.evaluation else None
        for record in _records(folder / "samples.jsonl") if folder else ():
            key = (record.get("index"), str(record.get("problem_id", record.get("index"))))
            if key in wanted:
                _add(found.setdefault(key, Answers()), record)  # type: ignore[arg-type]
    return found


def _add(answers: Answers, record: Json) -> None:
    right = bool(record.get("correct"))
    answer = record.get("answer")
    answers.prompt = answers.prompt or str(record.get("prompt") or "")
    answers.gold = answers.gold if record.get("gold") is None else str(record["gold"])
    answers.counts[None if answer is None else str(answer), right] += 1
    answers.completions.setdefault(right, str(record.get("completion") or ""))


def _records(file: Path) -> Iterator[Json]:
    """Those that can be read: a page does not fail for a line of a file that only explains it."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def longest_text(problems: int) -> int:
    """Characters of each text, so that the page of so many problems stays small enough to open."""
    return max(SHORTEST, min(LONGEST, TEXT_OF_ALL // max(1, 3 * problems)))


def shown(a: Answers | None, b: Answers | None, *, b_won: bool, longest: int) -> dict[str, Any] | None:
    """A problem as the page shows it; None if no sample of it is kept.

    The completions are those that decide: a wrong one of the side that is behind, a right one of the other.
    """
    known = [one for one in (a, b) if one is not None]
    if not known:
        return None
    prompts = list(dict.fromkeys(one.prompt for one in known))
    return {
        "prompts": [shortened(text, longest) for text in prompts],
        "gold": None if known[0].gold is None else shortened(known[0].gold, longest),
        "sides": [_side(a, first=not b_won, longest=longest), _side(b, first=b_won, longest=longest)],
    }


def _side(answers: Answers | None, *, first: bool, longest: int) -> dict[str, Any] | None:
    """first: whether a right completion says more than a wrong one."""
    if answers is None:
        return None
    right = first if first in answers.completions else not first
    most = answers.counts.most_common(MOST_ANSWERS)
    return {
        "answers": [
            {"text": None if text is None else shortened(text, LONGEST_ANSWER), "right": is_right, "count": count}
            for (text, is_right), count in most
        ],
        "more": len(answers.counts) - len(most),
        "right": right,
        "completion": shortened(answers.completions[right], longest),
    }


def shortened(text: str, longest: int) -> str:
    """With the middle left out, and no character that acts on what is around it."""
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters …\n{text[-half:]}"
    return visible(text, BLOCK)
