"""The ids that end a completion, and whether the model can draw them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.models.tokenizer_checks import ONE_FOLDER, named_ids


def stop_token_ids(
    tokenizer: Any, generation_config: Any, chat_template: bool, stop_tokens: Sequence[str] = ()
) -> frozenset[int]:
    """The tokenizer's eos, that of generation_config, the chat template's end of turn, and `stop_tokens`: texts of one
    token each.

    Models differ in which of the first two they emit (Qwen2.5's instruct models <|im_end|>, the base models
    <|endoftext|>), so both count. The end of turn counts only if the chat template is used.

    Raises:
        ConfigError: a text is no single token.
    """
    configured = getattr(generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list | tuple) else [configured])}
    if chat_template:
        ids.add(_end_of_turn(tokenizer))
    ids |= {_single_token(tokenizer, text) for text in stop_tokens}
    return frozenset(int(one) for one in ids if one is not None and one >= 0)


def check_stops(
    tokenizer: Any, stop_ids: Collection[int], rows: int, *, typed: Sequence[str], path: str, key: str
) -> list[str]:
    """Compare the ids that end a completion with the `rows` of the output head: only those can be drawn.

    typed: the texts of model.stop_tokens. Returns warnings: stops that never come.

    Raises:
        ConfigError: a typed text is an id that cannot be drawn.
        DataError: there are ids to stop at, and none of them can be drawn.
    """
    for text in typed:
        one = tokenizer(text, add_special_tokens=False)["input_ids"][0]
        if one >= rows:
            raise ConfigError(
                f"model.stop_tokens: '{text}' is id {one}, and the model draws {rows} ids: it would end nothing",
                "model.stop_tokens=[]",
            )
    beyond = [(one, tokenizer.convert_ids_to_tokens(one)) for one in sorted(stop_ids) if one >= rows]
    if not beyond:
        return []
    message = f"{key}: {path} is to stop at {named_ids(beyond)}, beyond the {rows} ids that the model draws"
    if len(beyond) == len(stop_ids):
        raise DataError(f"{message}: no completion would end", f"model.stop_tokens=[TOKEN]; or {ONE_FOLDER}")
    return [f"warning: {message}: such a stop never comes"]


def _single_token(tokenizer: Any, text: str) -> int:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ConfigError(
            f"model.stop_tokens: expected texts of one token, '{text}' is {len(ids)} of this model's",
            "the name of a special token, such as <|im_end|>; [] adds none",
        )
    return int(ids[0])


def _end_of_turn(tokenizer: Any) -> int | None:
    """The first special token that the template writes after an assistant's turn; None if it writes none."""
    answer = "ANSWER"
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # a template that cannot render an assistant's turn has no end of turn to show
        return None
    tail = text.rpartition(answer)[2]
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    return next((one for one in tokenizer(tail, add_special_tokens=False)["input_ids"] if one in special), None)
