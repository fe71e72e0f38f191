"""Commands that can be typed as they are printed: a value quoted for Hydra's grammar, then a word for the shell.

Hydra reads `=`, `#`, brackets, letters beyond ASCII and `${...}` in its own way, and takes `1e-3` for a number; a shell
has other rules on top. All that prints a command, or hands Hydra a text that stands for itself, goes through here.
"""

from __future__ import annotations

import os
import re
import shlex

PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")  # text without a meaning of its own, unless it is a word or a number below
WORDS = ("null", "true", "false", "inf", "nan")
INTERPOLATION_START = re.compile(r"(\\*)\$\{")
MISSING = "???"  # a value that is still to be set, in OmegaConf


def command(*words: str, **paths: object) -> str:
    """`dgpo` with these words, which need no quotes, and overrides: command("train", resume=folder).

    A key with a dot is given as `model__path=...`.
    """
    return " ".join(["dgpo", *words, *(override(key.replace("__", "."), value) for key, value in paths.items())])


def override(key: str, value: object) -> str:
    """`key=value` as it is typed in a shell so that the key gets exactly this text."""
    return shell_word(f"{key}={value_text(str(value))}")


def value_text(text: str) -> str:
    """The text as Hydra's grammar reads it back: bare where it is plain, else quoted."""
    return text if is_plain(text) else quoted(text, '"' if '"' not in text else "'")


def is_plain(text: str) -> bool:
    """Whether Hydra takes the bare text for just this text."""
    return bool(PLAIN.fullmatch(text)) and text.lower().lstrip("-") not in WORDS and not _is_number(text)


def quoted(text: str, quote: str = "'") -> str:
    """A value that Hydra's grammar, and OmegaConf after it, read as exactly this text."""
    return in_quotes(escaped(text), quote)


def in_quotes(text: str, quote: str = "'") -> str:
    """A value that Hydra's grammar reads as this text; its interpolations are left to OmegaConf."""
    inner = re.sub(rf"(\\*){quote}", rf"\1\1\\{quote}", text)
    trailing = len(inner) - len(inner.rstrip("\\"))
    return f"{quote}{inner}{inner[len(inner) - trailing :]}{quote}"


def escaped(text: str) -> str:
    r"""The text for OmegaConf, which would take `${x}` for an interpolation and `\${x}` for the text `${x}`."""
    return INTERPOLATION_START.sub(r"\1\1\\${", text)


def shell_word(text: str) -> str:
    """One word of a POSIX shell; one with characters that cannot be printed as bash and zsh read it: $'...'."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_ansi_c, text)) + "'"


def _ansi_c(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
