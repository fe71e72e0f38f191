"""Whether a tokenizer fits its model: the model embeds every id that it makes of text, and it spells every id drawn.

Prompts are checked as they are made (`data.prompts`), stop ids in stop_ids.py.
"""

from __future__ import annotations

from typing import Any

from dgpo_cli.errors import DataError

SAMPLE = "The answer is 12."
SHOWN = 3
ONE_FOLDER = "take tokenizer and model from one folder; tokens that were added need model.resize_token_embeddings"


def check_tokenizer(tokenizer: Any, embedded: int, *, path: str, key: str) -> list[str]:
    """Compare a tokenizer with the `embedded` ids of its model, the rows of the embedding.

    Returns warnings: tokens that were added beyond them, which no text may hold. The fill token may lie there: it is
    masked.

    Raises:
        DataError: it knows no text, has ordinary tokens beyond the embedding, or cannot spell an id that can be drawn.
    """
    _refuse_empty(tokenizer, path, key)
    beyond = sorted((one, token) for token, one in tokenizer.get_vocab().items() if one >= embedded)
    added = set(tokenizer.get_added_vocab())
    ordinary = [(one, token) for one, token in beyond if token not in added]
    if ordinary:
        raise DataError(
            f"{key}: the tokenizer of {path} has {_count(ordinary, 'token')} beyond the {embedded} that the model "
            f"embeds: {named_ids(ordinary)}",
            ONE_FOLDER,
        )
    _refuse_unspelled(tokenizer, embedded, path, key)
    warned = [(one, token) for one, token in beyond if token != tokenizer.pad_token]
    if not warned:
        return []
    return [
        f"warning: the tokenizer of {path} has {_count(warned, 'added token')} beyond the {embedded} that the model "
        f"embeds: {named_ids(warned)}; a prompt that holds one is refused"
    ]


def _refuse_empty(tokenizer: Any, path: str, key: str) -> None:
    """If its files are missing, transformers makes a tokenizer without a vocabulary."""
    special = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    ids = set(tokenizer(SAMPLE, add_special_tokens=False)["input_ids"])
    if set(tokenizer.get_vocab()) <= special or not ids - {tokenizer.unk_token_id}:
        raise DataError(
            f"{key}: the tokenizer of {path} has no vocabulary: its files are missing or empty",
            "put tokenizer.json and tokenizer_config.json beside the weights: tokenizer.save_pretrained(FOLDER)",
        )


def _refuse_unspelled(tokenizer: Any, embedded: int, path: str, key: str) -> None:
    """Rows that pad an embedding have no token, and they can be drawn."""
    try:
        tokenizer.decode([embedded - 1], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    except Exception as error:  # of many kinds: IndexError of sentencepiece, TypeError, KeyError, OverflowError
        raise DataError(
            f"{key}: the tokenizer of {path} cannot spell id {embedded - 1}, which the model can draw "
            f"({type(error).__name__})",
            "a tokenizer with tokenizer.json, as AutoTokenizer writes it",
        ) from error


def named_ids(tokens: list[tuple[int, str | None]]) -> str:
    shown = [f"id {one}" + (f" {token}" if token else "") for one, token in tokens[:SHOWN]]
    return ", ".join(shown) + (f" and {len(tokens) - SHOWN} more" if len(tokens) > SHOWN else "")


def _count(tokens: list[tuple[int, str]], kind: str) -> str:
    return f"{len(tokens)} {kind}" + "s" * (len(tokens) != 1)
