"""Paths as a person types them, quoted for the shell alone: rewritten so that Hydra's grammar gives them back.

What Hydra can read keeps its meaning: quotes, the commas of a sweep, `null`, interpolations of keys that there are
(`hydra.run.dir=outputs/${algo.name}`). Any other text means itself: `lr=1e-3`, `interp${x}`, `1e-3`. So does the name
of a file or folder that is there, whatever its characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from dgpo_cli.command_lines import MISSING, escaped, in_quotes, is_plain, quoted
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.path_keys import FOLDERS_OF_HYDRA, LISTS_OF_PATHS

INTERPOLATION = re.compile(r"(\\*)\$\{([^${}]*)(\}?)")
NESTED = re.compile(r"\$\{[^}]*\$\{")
HYDRAS_RESOLVERS = (
    "hydra",
    "now",
    "python_version",
    "job_folder",
    "run_folder",
)  # some are registered later than this is asked


def for_hydra(name: str, text: str, command: str, *, multirun: bool) -> str:
    """The value of a path key for Hydra's grammar: the text itself if the grammar reads it as meant."""
    if name == "runs" and text and not text.startswith(("[", "{")) and text != "null":
        return _list(name, f"[{text}]", command)  # runs=a,b: the brackets say nothing here
    if name in LISTS_OF_PATHS and text.startswith("[") and text.endswith("]") and not _exists(name, text):
        return _list(name, text, command)
    if multirun and "," in text and name not in FOLDERS_OF_HYDRA and not _lists_no_values(text):
        return ",".join(_one(name, part, command) for part in _parts(text))
    return _one(name, text, command)


def _list(name: str, text: str, command: str) -> str:
    override = _parsed(text)
    if override is not None and re.search("['\"]", text):
        return text
    return f"[{','.join(_one(name, part, command) for part in _joined(name, text[1:-1].split(',')))}]"


def _joined(name: str, parts: list[str]) -> Iterator[str]:
    """The parts between commas; several together if only together they name something that is there."""
    while parts:
        ends = range(len(parts), 1, -1)
        whole = [end for end in ends if not _exists(name, parts[0]) and _exists(name, ",".join(parts[:end]))]
        end = whole[0] if whole else 1
        yield ",".join(parts[:end])
        parts = parts[end:]


def _one(name: str, text: str, command: str) -> str:
    if is_plain(text) or not text:
        return text
    if _exists(name, text):
        return _literal(text)
    override = _parsed(text)
    if override is None:
        return _quoted(text, command)
    if override.is_sweep_override():
        return _literal(text) if name in FOLDERS_OF_HYDRA else text
    value = override.value()
    if value is None:
        return text
    if isinstance(value, str):
        is_stripped = value != text and not isinstance(override._value, QuotedString) and value == text.strip()
        meant = text if is_stripped else value
        unchanged = meant == value and _interpolations_quoted(meant, command) == meant
        return text if unchanged else _quoted(meant, command)
    is_number = isinstance(value, int | float)
    return _literal(text) if is_number or name in FOLDERS_OF_HYDRA else text


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_overrides([f"key={text}"])[0]
    except HydraException:
        return None


def _lists_no_values(text: str) -> bool:
    """True for a sweep that is no list of values: range(...), glob(...); and for text in one pair of quotes."""
    override = _parsed(text)
    if override is None:
        return False
    return not override.is_choice_sweep() or not override.is_sweep_override() or text.startswith("choice(")


def _parts(text: str) -> list[str]:
    """The values between commas; a comma in a value that begins with a quote is its own until the quote ends."""
    parts, quote = [""], ""
    for character in text:
        if character == "," and not quote:
            parts.append("")
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not parts[-1]:
            quote = character
        parts[-1] += character
    return parts


def _exists(name: str, text: str) -> bool:
    file = text.rpartition(":")[0] if name == "reward.path" else text
    try:
        return bool(file) and Path(file).exists()
    except (OSError, ValueError):  # too long, or with a NUL: no name of a file
        return False


def _literal(text: str) -> str:
    return quoted(f"./{text}" if text == MISSING else text)


def _quoted(text: str, command: str) -> str:
    return in_quotes(_interpolations_quoted(text, command))


def _interpolations_quoted(text: str, command: str) -> str:
    """The text, with a quote for whatever merely looks like an interpolation."""

    def decided(match: re.Match[str]) -> str:
        is_escaped = len(match[1]) % 2 == 1
        upto = text[: (text + "/").index("/", match.end())]  # the part of the path that it stands in
        is_meant = _is_interpolation(match[2], match[3], command) and not _exists("", upto)
        return match[0] if is_escaped or is_meant else escaped(match[0])

    return text if NESTED.search(text) else INTERPOLATION.sub(decided, text)


def _is_interpolation(inner: str, end: str, command: str) -> bool:
    """Whether `${inner}` names a key, a group or a resolver that there is."""
    resolver, colon, _ = inner.partition(":")
    if colon:
        return bool(end) and (resolver in HYDRAS_RESOLVERS or OmegaConf.has_resolver(resolver))
    first = re.split(r"[.\[]", inner)[0]
    return bool(end) and first in catalogue.keys(command)
