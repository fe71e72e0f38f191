r"""From rows to problems: keys, prompts and golds, each row checked to the last before anything starts.

It owns what a row must hold; `rows` and `hub` read, `prompts` applies templates. Nothing is dropped in silence: a
row that cannot be used stops the load, with its file, line, key and what was found; duplicates are dropped only
if asked for, and counted.

A prompt is text, or chat messages (a list of {role, content}). One that already carries an instruction, as those of
DAPO's original files do, is kept as it is: a template takes a known instruction off before it puts its own on
(`prompts.bare_problem`), so that no problem is wrapped twice.

A prompt that is the JSON text of messages (or Python's) is read as messages, and a gold that is the text of a list of
strings as that list; both are said. Text that shows an object of Python, as `b'2'`, is refused: the value is lost.

A gold is a number, a string or a list (several elements are joined by commas). Unless `reduce_golds` is off, a text
with a final `#### 18` or a solution with a `\boxed{18}` gives 18, and an integer loses its decoration: `336^\circ`,
`070`, `27.0`, `1,234` become 336, 70, 27, 1234. A unit that carries meaning stays: `15\text{ cm}`, `\$36`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from dgpo_cli.core.answers import reduced_gold
from dgpo_cli.data import digit_chain
from dgpo_cli.data.columns import is_python_text, list_in, messages_in
from dgpo_cli.data.fields import all_at, field, has_field, raise_missing, shown
from dgpo_cli.data.hub import HUB_ID, read_hub_rows
from dgpo_cli.data.kept_columns import kept_columns
from dgpo_cli.data.rows import READERS, Row, raise_all, read_rows, tidied
from dgpo_cli.data.validation import part_of
from dgpo_cli.errors import DataError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.progress import each
from dgpo_cli.terminal import say
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, Problem

DIGIT_CHAIN = "bundled:digit_chain"
ROLES = ("system", "user", "assistant")
ID_KEYS = ("problem_id", "unique_id", "id", "extra_info.index", "idx")


@dataclass(frozen=True)
class ProblemSet:
    """A data set as loaded, with what a manifest says of it."""

    problems: list[Problem]
    rows: int  # rows read, before duplicates and the limit
    duplicates: int  # rows dropped because their prompt had occurred before; the first of them is kept
    conflicts: int  # those among the dropped whose gold was another than that of the row kept
    revision: str | None  # commit on the hub, if known
    sha256: str  # of the problems and golds as they are used


def load_problems(path: str, **options: Any) -> list[Problem]:
    """The problems of `load_problem_set(path, **options)`, for callers that need nothing else."""
    return load_problem_set(path, **options).problems


def load_problem_set(
    path: str,
    *,
    prompt_key: str,
    answer_key: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    size: int = 16384,
    form: digit_chain.Form = digit_chain.DEFAULT_FORM,
    held_out: bool = False,
    deduplicate: bool = False,
    reduce_golds: bool = True,
    columns: ColumnsAsked = NO_COLUMNS,
    validation_fraction: float = 0.0,
    group: str = "data",
) -> ProblemSet:
    """Load a local file, a data set of the hub or the bundled task.

    path: a .jsonl, .json, .csv or .parquet file, a hub id (`config`, `split`, `revision` are its), or
    bundled:digit_chain (its 512 held-out problems, or `size` training problems drawn from `seed`, written in `form`;
    golds are never reduced).
    prompt_key, answer_key: columns; dots reach nested fields; `a|b` takes the first that holds something.
    limit: keep the first so many, after all rows were checked and duplicates of a prompt dropped (`deduplicate`).
    validation_fraction: leave out the rows that it splits off, or with `held_out` keep them alone (`validation`).
    columns: what of each row its problem keeps for the grader.
    group: data or benchmark, to name the keys in hints.
    Raises DataError with one problem a row that cannot be used.
    """
    if limit is not None and limit < 1:
        raise DataError(f"{group}.limit: expected at least 1, got {limit}", f"{group}.limit=null takes every row")
    found_revision = None
    if path.startswith("bundled:"):
        rows = _bundled_rows(path, seed=seed, size=size, form=form, held_out=held_out, group=group)
        reduce_golds = False
    elif _is_hub_id(path):
        path_key = f"{group}.path"
        hub = read_hub_rows(path, config=config, split=split, revision=revision, path_key=path_key)
        rows, found_revision = tidied(hub.rows, path), hub.revision
    else:
        rows = read_rows(Path(path).expanduser(), (prompt_key, answer_key))
    problems = _problems(rows, path, prompt_key, answer_key, reduce_golds=reduce_golds, columns=columns, group=group)
    kept = _first_of_each_prompt(problems) if deduplicate else problems
    golds = {problem.messages: problem.gold for problem in kept}
    conflicts = sum(golds[problem.messages] != problem.gold for problem in problems) if deduplicate else 0
    used = part_of(kept, validation_fraction, validation=held_out)[:limit]
    if validation_fraction and not used:
        raise DataError(f"{path}: {len(kept)} rows cannot be split in two", "data.validation_fraction=0 trains on all")
    return ProblemSet(used, len(rows), len(problems) - len(kept), conflicts, found_revision, _sha256(used))


def _is_hub_id(path: str) -> bool:
    return (
        Path(path).suffix.lower() not in READERS
        and not Path(path).expanduser().exists()
        and HUB_ID.fullmatch(path) is not None
    )


def _bundled_rows(path: str, *, seed: int, size: int, form: digit_chain.Form, held_out: bool, group: str) -> list[Row]:
    if path != DIGIT_CHAIN:
        raise DataError(f"{group}.path: expected {DIGIT_CHAIN}, got {path}", f"{group}.path={DIGIT_CHAIN}")
    if not held_out and not 1 <= size <= form.training_count:
        raise DataError(f"{group}.size: digit_chain has 1 to {form.training_count} training problems, got {size}")
    drawn = digit_chain.held_out_problems(form) if held_out else digit_chain.training_problems(seed, size, form)
    return [
        Row(f"row {number}", {"prompt": one.prompt, "completion": one.completion, "answer": one.answer})
        for number, one in enumerate(drawn, 1)
    ]


def _problems(
    rows: list[Row],
    source: str,
    prompt_key: str,
    answer_key: str,
    *,
    reduce_golds: bool,
    columns: ColumnsAsked,
    group: str,
) -> list[Problem]:
    for name, keys in (("prompt_key", prompt_key), ("answer_key", answer_key)):
        if not any(has_field(row.fields, keys) for row in rows):
            raise_missing(rows, source, f"{group}.{name}", keys)
    ids, kept = _ids(rows), kept_columns(rows, columns, source)
    problems: list[Problem] = []
    wrong: list[Wrong] = []
    unwrapped: Counter[str] = Counter()
    for index, row in enumerate(each(rows)):
        try:
            value = field(row.fields, prompt_key)
            turns = _unwrapped_prompt(value)
            messages = _messages(turns)
            unwrapped["messages"] += turns is not value
        except ValueError as error:
            wrong.append(Wrong(f"{source} {row.place}: {group}.prompt_key={prompt_key}: {error}"))
        try:
            value = field(row.fields, answer_key)
            answer = _unwrapped_gold(value)
            gold = _gold(answer, reduce=reduce_golds)
            unwrapped["lists"] += answer is not value
        except ValueError as error:
            wrong.append(Wrong(f"{source} {row.place}: {group}.answer_key={answer_key}: {error}"))
        if not wrong:
            problems.append(Problem(index, ids[index], messages, gold, kept[index], chat=isinstance(turns, list)))
    raise_all(wrong, source)
    if unwrapped["messages"]:
        say(
            f"note: {source}: {unwrapped['messages']} prompts are the text of a list of messages, and are read as "
            "messages"
        )
    if unwrapped["lists"]:
        say(f"note: {source}: {unwrapped['lists']} golds are the text of a list, and are read as its elements")
    return problems


def _unwrapped_prompt(value: Any) -> Any:
    """The messages that a text is; any other value as it is."""
    if not isinstance(value, str):
        return value
    if is_python_text(value):
        raise ValueError(f"expected a prompt, found how Python shows an object: {shown(value)}")
    messages = messages_in(value)
    return value if messages is None else messages


def _unwrapped_gold(value: Any) -> Any:
    """The elements of a list of texts that was written as text; any other value as it is."""
    if not isinstance(value, str):
        return value
    elements = list_in(value)
    return value if elements is None else elements


def _messages(value: Any) -> tuple[tuple[str, str], ...]:
    turns = [{"role": "user", "content": value}] if isinstance(value, str) else value
    if turns is None or turns == []:
        raise ValueError("the prompt is empty")
    if not isinstance(turns, list):
        raise ValueError(f"expected text or a list of {{role, content}}, found {shown(value)}")
    messages = tuple(_message(turn) for turn in turns)
    if messages[-1][0] != "user":
        raise ValueError(f"expected a last message of role user, found {messages[-1][0]}")
    return messages


def _message(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
        raise ValueError(f"expected a message {{role, content}}, found {shown(turn)}")
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        raise ValueError(f"expected a role among {', '.join(ROLES)}, found {shown(role)}")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"expected a message's content as text, found {shown(content)}")
    if not content.strip():
        raise ValueError(f"the {'prompt' if role == 'user' else role + ' message'} is empty")
    return role, _encodable(content)


def _gold(value: Any, *, reduce: bool) -> str:
    if isinstance(value, list):
        if any(isinstance(element, dict | list) for element in value):
            raise ValueError(f"expected a gold answer, found {shown(value)}")
        return ", ".join(_gold(element, reduce=reduce) for element in value)
    if value is None:
        raise ValueError("the gold answer is missing")
    if isinstance(value, dict):
        raise ValueError(f"expected a gold answer, found {shown(value)}; reach a nested field with a dot")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"expected a gold answer, found {value}")
        value = int(value) if reduce and value.is_integer() else value
    if not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"expected a gold answer, found {type(value).__name__} {shown(value)}")
    text = str(value)
    if is_python_text(text):
        raise ValueError(f"expected a gold answer, found how Python shows an object: {shown(text)}")
    gold = reduced_gold(text) if reduce else text
    if not gold.strip():
        raise ValueError(f"the gold answer is empty: {shown(value)}")
    return _encodable(gold)


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start + 1}, which is no text") from error
    return text


def _ids(rows: list[Row]) -> list[str]:
    """The rows' own ids if one column names every row once, else their 0-based numbers."""
    for key in ID_KEYS:
        ids = [next(all_at(row.fields, key), None) for row in rows]
        if all(isinstance(one, str | int) and not isinstance(one, bool) and one != "" for one in ids):
            texts = [str(one) for one in ids]
            if len(set(texts)) == len(texts):
                return texts
    return [str(index) for index in range(len(rows))]


def _first_of_each_prompt(problems: list[Problem]) -> list[Problem]:
    first: dict[tuple[tuple[str, str], ...], Problem] = {}
    for problem in problems:
        first.setdefault(problem.messages, problem)
    return list(first.values())


def _sha256(problems: list[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(repr((problem.messages, problem.gold)).encode())
    return digest.hexdigest()
