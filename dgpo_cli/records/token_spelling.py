"""Tokens as text: every one can be seen, and parts of a character are shown as their bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any


def token_speller(tokenizer: Any) -> Callable[[int], str]:
    """A function from a token id to its text; `<id:N>` if the tokenizer does not know the id (a padded head has such).

    A token that is a part of a character has no text of its own: its bytes are spelled `<0xE2>`.
    """
    known = set(tokenizer.get_vocab().values())

    @lru_cache(maxsize=65_536)
    def spell(token: int) -> str:
        if token not in known:
            return f"<id:{token}>"
        text: str = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        piece = str(tokenizer.convert_ids_to_tokens(token))
        if "\ufffd" in text:
            return _spell_bytes(piece, text)
        # A SentencePiece decoder drops the space before the first word of a text. Here each token is a first word.
        return f" {text}" if piece.startswith("\u2581") and not text.startswith(" ") else text

    return spell


def _spell_bytes(piece: str, text: str) -> str:
    """Whole characters as they are, stray bytes as `<0xE2>`; `text` if the piece does not stand for bytes."""
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", piece):
        return piece
    table = _byte_of_symbol()
    if not all(symbol in table for symbol in piece):
        return text
    return bytes(table[symbol] for symbol in piece).decode("utf-8", errors="dgpo_stray_bytes")


def _stray_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"<0x{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("dgpo_stray_bytes", _stray_bytes)


@lru_cache(maxsize=1)
def _byte_of_symbol() -> dict[str, int]:
    """Byte-level BPE writes a letter for each byte: itself if it can be printed, else one from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(rest)}
