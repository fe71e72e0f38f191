"""Rollouts that another trainer wrote: completion files of TRL, rollout dumps of verl, traces of prime-rl.

One small function a form; `config/rollout_files.py` says which rows have which. docs/rollouts.md has the table of
fields and the versions that were looked at. Nothing is tokenised here: see `retokenised.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgpo_cli.config.rollout_files import LOOKED_FOR, trainer_of
from dgpo_cli.data.rows import Row, raise_all, read_rows
from dgpo_cli.errors import DataError, Problem
from dgpo_cli.records.record_checks import is_integer, is_number

Turns = tuple[tuple[str, str], ...]  # (role, content)


@dataclass(frozen=True)
class ForeignRollout:
    """A completion as another trainer wrote it. Ids are empty if the file has texts alone."""

    prompt: str | Turns
    completion: str
    reward: float | None = None
    advantage: float | None = None
    step: int | None = None
    group: str = ""  # what the file calls its group; the step and the prompt name it otherwise
    parts: dict[str, float] = field(default_factory=dict)
    gold: str = ""
    finish_reason: str = "unknown"
    prompt_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None

    @property
    def prompt_text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else "\n\n".join(content for _, content in self.prompt)


@dataclass(frozen=True)
class ForeignFile:
    """What was read of a file, in its order, and why rows of it were left out: reason -> count."""

    source: str
    trainer: str
    rollouts: list[ForeignRollout]
    left_out: dict[str, int]

    def groups(self) -> list[list[int]]:
        """The rows of each group: one prompt, or what the file calls a group, in one step. By first appearance."""
        found: dict[Any, list[int]] = {}
        for row, rollout in enumerate(self.rollouts):
            found.setdefault((rollout.step, rollout.group or rollout.prompt), []).append(row)
        return list(found.values())


class _LeftOut(Exception):
    """A row that holds no single completion of one prompt; the reason completes 'left out: '."""


def read_foreign(path: Path) -> ForeignFile:
    """The completions of a file.

    Raises:
        DataError: no known form, a field of the wrong kind, or no row that can be used.
    """
    rows = read_rows(path)
    trainer = trainer_of(rows[0].fields)
    if trainer is None:
        raise unknown_form(rows[0], str(path))
    rollouts, problems, left_out = [], [], Counter[str]()
    for row in rows:
        for fields in _rollouts_in(row.fields):
            try:
                rollouts.append(READERS[trainer](fields))
            except _LeftOut as reason:
                left_out[str(reason)] += 1
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                problems.append(Problem(f"{path} {row.place}: not as {trainer} writes it: {what}"))
    raise_all(problems, str(path))
    if not rollouts:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"{path}: no completion that can be used: {reasons or 'the file holds none'}")
    return ForeignFile(str(path), trainer, rollouts, dict(left_out))


def unknown_form(row: Row, source: str) -> DataError:
    """That no known form has the fields of a file's first row."""
    found = ", ".join(list(row.fields)[:12]) or "none"
    return DataError(
        f"{source}: rollouts of no known form: {row.place} has the fields {found}",
        f"looked for dgpo (tokens); {LOOKED_FOR}: docs/rollouts.md",
    )


def _rollouts_in(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """prime-rl writes the traces of an episode in one row; each gets the row's own facts."""
    if isinstance(fields.get("traces"), list) and "nodes" not in fields:
        for trace in fields["traces"]:
            about = {"episode": fields.get("prime_rl") or {}}
            yield (trace if isinstance(trace, dict) else {"nodes": trace}) | about
    else:
        yield fields


def _trl(fields: dict[str, Any]) -> ForeignRollout:
    """One numeric column a reward function; columns of `log_extra` cannot be told from them. NaN: it gave none.

    Versions that wrote no advantage wrote the sum, `reward`.
    """
    known = ("step", "prompt", "completion", "advantage") + (() if "advantage" in fields else ("reward",))
    parts = {name: float(value) for name, value in fields.items() if name not in known and is_number(value)}
    reward = _number(fields.get("reward")) if "reward" in known else None
    return ForeignRollout(
        prompt=_prompt(fields["prompt"]),
        completion=_answer(fields["completion"]),
        reward=sum(parts.values()) if reward is None and parts else reward,
        advantage=_number(fields.get("advantage")),
        step=_step(fields["step"]),
        parts=parts,
    )


def _verl(fields: dict[str, Any]) -> ForeignRollout:
    """Texts decoded without special tokens; numbers beside them are what the reward function reported."""
    known = ("input", "output", "gts", "score", "step")
    return ForeignRollout(
        prompt=_text(fields["input"]),
        completion=_text(fields["output"]),
        reward=_number(fields.get("score")),
        step=_step(fields.get("step")),
        parts={name: float(value) for name, value in fields.items() if name not in known and is_number(value)},
        gold="" if fields.get("gts") is None else str(fields["gts"]),
    )


def _prime(fields: dict[str, Any]) -> ForeignRollout:
    return _trace(fields) if "nodes" in fields else _prime_row(fields)


def _prime_row(fields: dict[str, Any]) -> ForeignRollout:
    """A row of the earlier form: messages without token ids."""
    return ForeignRollout(
        prompt=_prompt(fields["prompt"]),
        completion=_answer(fields["completion"]),
        reward=_number(fields.get("reward")),
        advantage=_number(fields.get("advantage")),
        step=_step(fields.get("step")),
        group=str(fields["example_id"]),
        parts={name: float(value) for name, value in (fields.get("metrics") or {}).items() if is_number(value)},
        gold=str(fields.get("answer") or ""),
        finish_reason="length" if fields.get("is_truncated") else "unknown",
    )


def _trace(fields: dict[str, Any]) -> ForeignRollout:
    """A graph of messages, each with the tokens that it adds; `mask` marks those that the model drew."""
    nodes = fields["nodes"]
    *before, last = nodes
    drawn = [node for node in nodes if node.get("sampled") or any(node.get("mask") or ())]
    if drawn != [last] or any(node.get("parent") not in (None, place - 1) for place, node in enumerate(nodes)):
        raise _LeftOut("of several turns or branches (or without a drawn answer): one answer to one prompt is read")
    mask = last.get("mask") or []
    scaffold = mask.index(True) if True in mask else len(mask)
    if not all(mask[scaffold:]):
        raise _LeftOut("whose answer is not one run of drawn tokens")
    ids = last.get("token_ids") or []
    about = (fields.get("info") or {}).get("prime_rl") or fields.get("episode") or {}
    return ForeignRollout(
        prompt=tuple(_turn(node["message"]) for node in before),
        completion=_turn(last["message"])[1],
        reward=_trace_reward(fields),
        advantage=_trace_advantage(fields, last),
        step=_step(about.get("step", about.get("policy_version", fields.get("policy_version")))),
        group=str(about.get("group_id") or fields.get("group_id") or ""),
        parts={name: float(value) for name, value in (fields.get("metrics") or {}).items() if is_number(value)},
        finish_reason=_finish(fields, last),
        prompt_ids=tuple(_ids([*(i for node in before for i in node.get("token_ids") or []), *ids[:scaffold]])),
        token_ids=tuple(_ids(ids[scaffold:])),
        logprobs=tuple(last.get("logprobs") or ()) or None,
    )


def _trace_reward(fields: dict[str, Any]) -> float | None:
    """The weighted sum of the named rewards; one that is null was not scored."""
    named = [value for value in (fields.get("rewards") or {}).values() if value is not None]
    if not named:
        return _number(fields.get("reward"))
    return sum(float(one) if is_number(one) else float(one["score"]) * float(one.get("weight", 1.0)) for one in named)


def _trace_advantage(fields: dict[str, Any], last: dict[str, Any]) -> float | None:
    """Of the rollout; of several values a token, the mean of those that are not 0, as prime-rl reports it."""
    values = last.get("advantages")
    if values is None:
        return _number(fields.get("advantage"))
    kept = [float(value) for value in values if value]
    return sum(kept) / len(kept) if kept else 0.0


def _finish(fields: dict[str, Any], last: dict[str, Any]) -> str:
    calls = [call.get("finish_reason") for call in fields.get("calls") or []]
    return str(next((reason for reason in (last.get("finish_reason"), *reversed(calls)) if reason), "unknown"))


READERS: dict[str, Callable[[dict[str, Any]], ForeignRollout]] = {"TRL": _trl, "verl": _verl, "prime-rl": _prime}


def _prompt(value: Any) -> str | Turns:
    return value if isinstance(value, str) else tuple(_turn(message) for message in value)


def _answer(value: Any) -> str:
    """The text of a completion: a string, or one message of the assistant."""
    if isinstance(value, str):
        return value
    if len(value) != 1:
        raise _LeftOut("of several turns or branches (or without a drawn answer): one answer to one prompt is read")
    return _turn(value[0])[1]


def _turn(message: Any) -> tuple[str, str]:
    """Role and text; the text parts of a content that is a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        if any(part.get("type", "text") != "text" for part in content):
            raise _LeftOut("with images or other parts that are no text")
        content = "".join(str(part.get("text") or "") for part in content)
    return str(message["role"]), str(content or "")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {type(value).__name__}")
    return value


def _number(value: Any) -> float | None:
    """None for null, NaN and what is no number: no reward then."""
    return float(value) if is_number(value) else None


def _step(value: Any) -> int | None:
    return int(value) if is_integer(value) and value >= 0 else None


def _ids(values: list[Any]) -> list[int]:
    if not all(is_integer(value) and value >= 0 for value in values):
        raise ValueError("token_ids: expected integers of at least 0")
    return [int(value) for value in values]
