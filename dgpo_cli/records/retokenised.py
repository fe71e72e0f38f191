"""Rollouts of another trainer in the tokens of a model: the ids of the file, or its texts tokenised again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from dgpo_cli.data.prompts import make_prompts
from dgpo_cli.errors import DataError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.records.foreign import ForeignFile, ForeignRollout, Turns
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest


@dataclass(frozen=True)
class Retokenised:
    """Rollouts that can be scored; `rows` says which of the file each is. Notes are lines for the user."""

    rollouts: list[Rollout]
    rows: list[int]
    notes: list[str]


def places(foreign: ForeignFile) -> list[tuple[str, int, int]]:
    """Of each rollout: the id of its prompt (STEP/NUMBER, or NUMBER without a step), its group, its sample in that."""
    found = [("", 0, 0)] * len(foreign.rollouts)
    for group, rows in enumerate(foreign.groups()):
        step = foreign.rollouts[rows[0]].step
        for sample, row in enumerate(rows):
            found[row] = (f"{group}" if step is None else f"{step}/{group}", group, sample)
    return found


def retokenised(foreign: ForeignFile, model: LanguageModel) -> Retokenised:
    """Rollouts without a token, and those beyond the model's context, are left out and counted in a note.

    Raises:
        DataError: ids of the file that the model does not have, or an empty prompt.
    """
    prompts = _Prompts(model.tokenizer)
    rollouts, rows, changed, left_out = [], [], 0, Counter(foreign.left_out)
    for row, (one, (prompt_id, group, sample)) in enumerate(zip(foreign.rollouts, places(foreign), strict=True)):
        has_ids = bool(one.prompt_ids and one.token_ids)
        problem = Problem(group, prompt_id, (), one.gold)
        prompt = _of_ids(one, problem, model.tokenizer) if has_ids else prompts.of(one.prompt, problem)
        ids = (
            one.token_ids if has_ids else tuple(model.tokenizer(one.completion, add_special_tokens=False)["input_ids"])
        )
        length = len(prompt.token_ids) + len(ids)
        if not ids or not prompt.token_ids:
            left_out["without a token"] += 1
        elif model.max_context is not None and length > model.max_context:
            left_out[f"longer than the model's context of {model.max_context}"] += 1
        else:
            _check_ids(foreign, row, (*prompt.token_ids, *ids), model)
            changed += not has_ids and _decoded(model.tokenizer, ids) != one.completion
            logprobs = one.logprobs if has_ids and one.logprobs and len(one.logprobs) == len(ids) else None
            request = SampleRequest(prompt, sample, 0, group)
            rollouts.append(Rollout(request, ids, one.completion, one.finish_reason, logprobs=logprobs))
            rows.append(row)
    notes = [f"note: {foreign.source}: left out: {count} {reason}" for reason, count in left_out.items()]
    if not rollouts:
        raise DataError(f"{foreign.source}: no rollout that the model can score", "; ".join(notes))
    texts = sum(not foreign.rollouts[row].token_ids for row in rows)
    return Retokenised(rollouts, rows, notes + _about_texts(foreign, texts, changed))


def _about_texts(foreign: ForeignFile, texts: int, changed: int) -> list[str]:
    if not texts:
        return []
    notes = [
        f"note: {foreign.source}: {texts} completions are texts, tokenised again, without an end token: they may be "
        f"other tokens than were drawn; {changed} of them decode to another text"
    ]
    if foreign.trainer == "verl":
        notes.append(
            f"note: {foreign.source}: verl writes prompts without their special tokens: with a chat template the model "
            "saw another prompt than it is scored after"
        )
    return notes


class _Prompts:
    """Each prompt is tokenised once, by its turns' chat template if it is turns and the tokenizer has one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str | Turns, tuple[str, tuple[int, ...]]] = {}

    def of(self, prompt: str | Turns, problem: Problem) -> Prompt:
        if prompt not in self.known:
            turns = (("user", prompt),) if isinstance(prompt, str) else prompt
            [made] = make_prompts(
                [Problem(problem.index, problem.problem_id, turns, problem.gold)],
                self.tokenizer,
                template="plain",
                chat_template=not isinstance(prompt, str) and bool(getattr(self.tokenizer, "chat_template", None)),
                system_prompt=None,
                max_context=None,
                max_completion_tokens=0,
            )
            self.known[prompt] = (made.text, made.token_ids)
        return Prompt(problem, *self.known[prompt])


def _of_ids(one: ForeignRollout, problem: Problem, tokenizer: Any) -> Prompt:
    return Prompt(problem, _decoded(tokenizer, one.prompt_ids), one.prompt_ids)


def _decoded(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _check_ids(foreign: ForeignFile, row: int, ids: tuple[int, ...], model: LanguageModel) -> None:
    if max(ids) >= model.embedded_ids:
        raise DataError(
            f"{foreign.source}: rollout {row + 1} has token {max(ids)}, and the model embeds {model.embedded_ids}",
            "model.path=MODEL is the model that drew them, or one with its tokenizer",
        )
