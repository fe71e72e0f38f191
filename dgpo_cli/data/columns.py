"""Names of columns, and values that stand for text: what may be read as something else, and what may not.

Pure functions; `rows` and `problems` say what was done, or refuse.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # a byte order mark in the middle, zero-width spaces and joiners

# Objects of Python as `str` writes them: a file that was written from them lacks the value itself.
_OF_PYTHON = re.compile(
    r"""b(?P<quote>['"]).*(?P=quote)|(?:np|numpy|torch|decimal|datetime|pd)\.\w+\(.*\)"""
    r"""|(?:tensor|array|Decimal|Timestamp|bytearray)\(.*\)|<[\w.]+ object at 0x[0-9a-f]+>""",
    re.DOTALL,
)
_MESSAGES = re.compile(r"""(?:array\()?\s*\[?\s*\{\s*['"](?:role|content|from|value)['"]\s*:""")
_TURNS = ({"role", "content"}, {"from", "value"})  # the latter is ShareGPT's way, which is refused by name


def clean_name(name: str) -> str:
    """A column's name without blanks around it."""
    return str(name).strip().strip(INVISIBLE).strip()


def repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def nameless(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns (from 1) without a name that hold something: nothing can ask for them."""
    return [at + 1 for at, name in enumerate(header) if not name and any(values[at].strip() for values in rows)]


def text_of_bytes(values: Sequence[Any]) -> list[Any] | None:
    """The values with bytes as UTF-8 text; None if some are no text (images): they stay bytes."""
    try:
        return [value.decode() if isinstance(value, bytes) else value for value in values]
    except UnicodeDecodeError:
        return None


def is_python_text(text: str) -> bool:
    """Whether a text is how Python shows an object, as `b'2'` or `np.int64(2)`, in place of its value."""
    return _OF_PYTHON.fullmatch(text.strip()) is not None


def messages_in(text: str) -> Any:
    """The chat messages that a text is, as JSON or Python writes them; None for a text that is none.

    Raises:
        ValueError: it begins as messages do, and cannot be read.
    """
    text = text.strip()
    if not _MESSAGES.match(text):
        return None
    value = _literal(text)
    if value is None and any(all(f"'{key}'" in text or f'"{key}"' in text for key in keys) for keys in _TURNS):
        raise ValueError("begins as a list of messages written as text, and is no JSON")
    turns = value if isinstance(value, list) else [value]
    is_chat = all(isinstance(turn, dict) and any(keys <= turn.keys() for keys in _TURNS) for turn in turns)
    return turns if is_chat else None


def list_in(text: str) -> list[str] | None:
    """The texts of a list that was written as text, as `['18']`; None for any other text, `[1, 2]` among them."""
    text = text.strip()
    quoted = text[:1] == "[" and text[-1:] == "]" and text[1:-1].strip()[:1] in ("", "'", '"')
    value = _literal(text) if quoted else None
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
