"""Reads a server's answer of status 200: a completion, or the reason why it is none.

Servers, and proxies before them, say 200 and put an error, an empty list or a login page into the content. No transport
here, and no requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dgpo_cli.engines.http import Answer, Failure, said

GAVE_UP = ("abort", "error", "cancelled")
MOST_TOKENS = 2**31  # no completion has more: the count is then none
LOG_HINT = "its log may say why"


@dataclass(frozen=True)
class Found:
    """A completion as the server gave it."""

    text: str
    finish_reason: str | None
    tokens: int | None  # None if the server does not count


def read_completion(answer: Answer, *, chat: bool, path: str) -> Found | Failure:
    """The first choice's text. All that is none is worth another try, but for a completion that a filter held back."""
    record = answer.json()
    if not isinstance(record, dict):
        reason = f"expected JSON of an OpenAI-compatible server from {path}, got {said(answer)}"
        return Failure(reason, "no_completion", hint=LOG_HINT)
    choices = record.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    fault = record.get("error") or (choice.get("error") if isinstance(choice, dict) else None)
    text = _text(choice, chat)
    if fault or text is None:
        reason = f"an answer of {path} holds no completion: {_fault_words(fault) or said(answer)}"
        return Failure(reason, "error" if fault else "no_completion", hint=LOG_HINT)
    assert isinstance(choice, dict)
    finish_reason = choice.get("finish_reason")
    if finish_reason in GAVE_UP:
        reason = f"the server gave up a completion (finish_reason {finish_reason})"
        return Failure(reason, "gave_up", hint=LOG_HINT)
    if finish_reason == "content_filter":
        return Failure("the server's filter held a completion back", "content_filter", again=False, hint=LOG_HINT)
    return Found(text, finish_reason if isinstance(finish_reason, str) else None, _count(record.get("usage")))


def _fault_words(fault: Any) -> str:
    while isinstance(fault, dict) and fault.get("message"):
        fault = fault["message"]
    return str(fault) if fault else ""


def _text(choice: Any, chat: bool) -> str | None:
    """The text of a choice. A reasoning model that was cut while it thought has a message without content."""
    if not isinstance(choice, dict):
        return None
    if not chat:
        text = choice.get("text")
        return text if isinstance(text, str) else None
    message = choice.get("message")
    if not isinstance(message, dict):
        return None
    content = message.get("content")
    if isinstance(content, list):
        return _joined(content)
    return "" if content is None else content if isinstance(content, str) else None


def _joined(parts: list[Any]) -> str | None:
    """The text among the parts that some servers cut a message into; their thinking is none of it."""
    if not all(isinstance(part, dict) for part in parts):
        return None
    texts = [part.get("text") for part in parts if part.get("type") in ("text", "output_text")]
    return "".join(text for text in texts if isinstance(text, str))


def _count(usage: Any) -> int | None:
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    is_count = isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < MOST_TOKENS
    return tokens if is_count else None
