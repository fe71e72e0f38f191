"""From problems to prompts: a template, then the tokenizer's chat template or plain text, tokenised once.

It owns the exact text and ids that a model sees. The templates are `dapo`,
`boxed`, `plain` and files of the user's own; each is put on the last user turn.
"""

from __future__ import annotations

import difflib
import statistics
from pathlib import Path
from typing import Any

from dgpo_cli.data.rows import raise_all
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.progress import each
from dgpo_cli.types import Problem, Prompt

SLOT = "{problem}"
MEASURED = 32  # prompts whose template is counted in tokens

# dapo: the prompt of BytedTsinghua-SIA/DAPO (arXiv 2503.14476). boxed: the instruction of the Qwen2.5-Math models.
TEMPLATES = {
    "dapo": (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{problem}\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    ),
    "boxed": "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "plain": SLOT,
}


def read_template(template: str) -> str:
    """The text of a named template or of a file; it holds `{problem}`. A file's last line break is left out."""
    if template in TEMPLATES:
        return TEMPLATES[template]
    path = Path(template).expanduser()
    if not path.is_file():
        close = difflib.get_close_matches(template, TEMPLATES, n=1)
        raise ConfigError(
            f"template: expected {' | '.join(TEMPLATES)} or a file with {SLOT}, got {template}",
            f"template={close[0]}" if close else "",
        )
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"template {path}: cannot be read ({error})") from error
    if SLOT not in text:
        raise DataError(f"template {path}: expected {SLOT} where the problem goes, found none")
    return text


def bare_problem(text: str) -> str:
    """`text` without the instruction of a known template, for files whose prompts carry one; other text as it is."""
    for template in TEMPLATES.values():
        before, _, after = template.partition(SLOT)
        if before + after and text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after):
            return text[len(before) : len(text) - len(after)]
    return text


def apply_template(template: str, messages: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The turns with the template's text around the last user turn.

    `{problem}` is replaced literally: braces of the template and of the problem mean nothing. `plain` leaves a
    prompt exactly as the file has it; any other template first takes off an instruction that the prompt already
    carries.
    """
    if template == SLOT:
        return messages
    role, text = messages[-1]
    return (*messages[:-1], (role, template.replace(SLOT, bare_problem(text))))


def make_prompts(
    problems: list[Problem],
    tokenizer: Any,
    *,
    template: str,
    chat_template: bool,
    system_prompt: str | None,
    max_context: int | None,
    max_completion_tokens: int,
    limit_key: str = "rollout.max_completion_tokens",
    embedded_ids: int | None = None,
) -> list[Prompt]:
    """The prompts as the model sees them, in the order of the problems.

    With `chat_template` the tokenizer's template makes the text, which holds every special token already; a system
    turn of the row's own wins over `system_prompt`. Without, the turns are joined by blank lines, their roles left
    out, and the text begins with the tokenizer's bos token if that tokenizer puts one (Llama does, Qwen does
    not); no end token is added.
    Raises DataError for prompts that leave no room for `max_completion_tokens` (`limit_key` names it) in `max_context`,
    and for those that hold a token beyond the model's `embedded_ids`.
    """
    _check_system_prompt(system_prompt, chat_template)
    if chat_template and not getattr(tokenizer, "chat_template", None):
        raise ConfigError("model.chat_template=true: the tokenizer has no chat template", "model.chat_template=false")
    text_of_template = read_template(template)
    bos = "" if chat_template else _bos_text(tokenizer)
    prompts = []
    for problem in each(problems):
        messages = apply_template(text_of_template, problem.messages)
        if chat_template:
            text = _chat_text(tokenizer, messages, system_prompt, problem)
        else:
            text = _joined(messages)
            text = text if bos and text.startswith(bos) else bos + text
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompts.append(Prompt(problem, text, tuple(ids)))
    misfits = _misfits(prompts, max_context, max_completion_tokens, limit_key)
    if embedded_ids is not None:
        misfits += _unfed(prompts, tokenizer, embedded_ids, chat_template)
    raise_all(misfits, "the prompts")
    return prompts


def untokenised_prompts(
    problems: list[Problem], *, template: str, chat_template: bool, system_prompt: str | None
) -> list[Prompt]:
    """The prompts of `make_prompts` for a server that tokenises them itself: without ids, and without a bos token.

    With `chat_template` they carry the turns, and their text is the turns' content: only the server knows what its
    chat template makes of them.
    """
    _check_system_prompt(system_prompt, chat_template)
    text_of_template = read_template(template)
    prompts = []
    for problem in problems:
        messages = apply_template(text_of_template, problem.messages)
        if chat_template:
            messages = _with_system(messages, system_prompt)
        prompts.append(Prompt(problem, _joined(messages), (), messages if chat_template else ()))
    return prompts


def _check_system_prompt(system_prompt: str | None, chat_template: bool) -> None:
    if system_prompt is not None and not chat_template:
        raise ConfigError(
            "system_prompt: works with model.chat_template=true only", "put it into a template file with {problem}"
        )


def _joined(messages: tuple[tuple[str, str], ...]) -> str:
    return "\n\n".join(content for _, content in messages)


def _with_system(messages: tuple[tuple[str, str], ...], system_prompt: str | None) -> tuple[tuple[str, str], ...]:
    """A system turn of the row's own wins."""
    if system_prompt is None or messages[0][0] == "system":
        return messages
    return (("system", system_prompt), *messages)


def _chat_text(
    tokenizer: Any, messages: tuple[tuple[str, str], ...], system_prompt: str | None, problem: Problem
) -> str:
    turns = [{"role": role, "content": content} for role, content in _with_system(messages, system_prompt)]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of the model's: TemplateError, TypeError, KeyError ...
        raise DataError(
            f"row {problem.index + 1} (id {problem.problem_id}): the tokenizer's chat template refuses it ({error})",
            "some templates take no system turn" if turns[0]["role"] == "system" else "",
        ) from error


def _bos_text(tokenizer: Any) -> str:
    bos_id = getattr(tokenizer, "bos_token_id", None)
    if bos_id is None:
        return ""
    with_special, without = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    return str(tokenizer.bos_token) if with_special[:1] == [bos_id] and without[:1] != [bos_id] else ""


def _misfits(prompts: list[Prompt], max_context: int | None, limit: int, limit_key: str) -> list[Wrong]:
    problems = [
        Wrong(f"row {prompt.problem.index + 1} (id {prompt.problem.problem_id}): the prompt has no tokens")
        for prompt in prompts
        if not prompt.token_ids
    ]
    if max_context is None:
        return problems
    over = [prompt for prompt in prompts if len(prompt.token_ids) + limit > max_context]
    if over:
        longest = max(over, key=lambda prompt: len(prompt.token_ids))
        length = len(longest.token_ids)
        room = max_context - length
        problems.append(
            Wrong(
                f"{len(over)} of {len(prompts)} prompts and {limit_key}={limit} do not fit the model's context of "
                f"{max_context}: the longest, row {longest.problem.index + 1} (id {longest.problem.problem_id}), has "
                f"{length} tokens",
                f"{limit_key}={room}" if room > 0 else "a model with a longer context, or a file without such rows",
            )
        )
    return problems


def _unfed(prompts: list[Prompt], tokenizer: Any, embedded_ids: int, chat_template: bool) -> list[Wrong]:
    """Prompts with a token that the model has no row for."""
    found = [(prompt, max(prompt.token_ids)) for prompt in prompts if max(prompt.token_ids, default=0) >= embedded_ids]
    if not found:
        return []
    prompt, token = found[0]
    return [
        Wrong(
            f"{len(found)} of {len(prompts)} prompts hold a token beyond the {embedded_ids} that the model embeds: the "
            f"first, row {prompt.problem.index + 1} (id {prompt.problem.problem_id}), has "
            f"{tokenizer.convert_ids_to_tokens(token)} (id {token})",
            "take tokenizer and model from one folder"
            + ("; model.chat_template=false writes no tokens of a chat" if chat_template else ""),
        )
    ]


def template_line(template: str, prompts: list[Prompt], tokenizer: Any, key: str) -> str | None:
    """What a template costs, in a line, by the middle one of some prompts; None for `plain`, which adds nothing.

    key: that of the template, such as data.template.
    """
    if template == "plain" or not prompts:
        return None
    text = read_template(template)

    def added(prompt: Prompt) -> int:
        role, bare = prompt.problem.messages[-1]
        wrapped = apply_template(text, ((role, bare),))[-1][1]
        wrapped_ids, bare_ids = tokenizer([wrapped, bare], add_special_tokens=False)["input_ids"]
        return len(wrapped_ids) - len(bare_ids)

    tokens = statistics.median_low([added(prompt) for prompt in prompts[:MEASURED]])
    shows = "; dgpo rollout limit=1 shows it" if key == "data.template" else ""
    return f"template {template} adds {tokens} tokens a prompt; {key}=plain turns it off{shows}"
