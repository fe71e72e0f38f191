"""The words for a server that refuses a request: its own, and the setting of ours that may mend it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dgpo_cli.engines.http import OF_THE_SERVER, Answer, HttpClient, said
from dgpo_cli.errors import RunError, ServerError

MAX_TOKENS_KEYS = ("max_tokens", "max_completion_tokens")
URL_HINT = "engine.url=http://HOST:PORT/v1 is the address of the API, usually with /v1 at its end"


@dataclass(frozen=True)
class Asked:
    """The part of a request that is the same for every prompt."""

    endpoint: str
    model: str
    chat: bool
    max_tokens_key: str


def refusal(client: HttpClient, answer: Answer, asked: Asked) -> ServerError:
    """An answer that is not 2xx as one line, with a hint of what to do."""
    message, hint = _words(client, answer, asked)
    whole_server = answer.status < 400 or answer.status in OF_THE_SERVER
    return ServerError(message, hint, cause=f"status_{answer.status}", whole_server=whole_server)


def _words(client: HttpClient, answer: Answer, asked: Asked) -> tuple[str, str]:
    words = client.shown(said(answer))
    message = f"{client.url}: {asked.endpoint} answers with status {answer.status}: {words}"
    if answer.status in (401, 403):
        return message, "engine.api_key_env=NAME names the environment variable that holds the key"
    other_key = next(key for key in MAX_TOKENS_KEYS if key != asked.max_tokens_key)
    if answer.status in (400, 422) and _blames_key(said(answer), asked.max_tokens_key, other_key):
        return message, f"engine.max_tokens_key={other_key}"
    named = re.search(rf"(?<!\w){re.escape(asked.model)}(?!\w)", words) is not None
    if answer.status in (404, 405) and not named and "model" not in words.lower():
        known = _models(client)
        if known is None:
            return message, URL_HINT
        other = "false sends text" if asked.chat else "true sends chat messages"
        what = "chat completions" if asked.chat else "text completions"
        return f"{client.url}: this server offers no {what} ({message})", f"model.chat_template={other}"
    if answer.status == 404 or (named and answer.status == 400):
        known = _models(client)
        names = f"; the server lists {', '.join(known[:10])}" if known else ""
        return message, f"engine.model is '{asked.model}'{names}"
    if 300 <= answer.status < 400:
        return f"{client.url}: it redirects to another address, which is not followed", URL_HINT
    return message, "the request is refused as it is: see benchmark.max_tokens, temperature and top_p"


def _blames_key(words: str, sent: str, other: str) -> bool:
    """Whether a refusal is about the name of the limit, and not about its size, which vLLM says with both names."""
    about_names = r"unsupported|not supported|unknown|unrecogni[sz]ed|unexpected|extra|not permitted|forbidden|instead"
    is_named = any(re.search(rf"\b{key}\b", words) for key in (sent, other))
    return is_named and bool(re.search(rf"{about_names}|use\W+{other}", words, re.IGNORECASE))


def _models(client: HttpClient) -> list[str] | None:
    """The models that the server lists, for a hint; None if it lists nothing that can be read."""
    try:
        return names_in(client.send("/models", first=True, retries=0))
    except RunError:
        return None


def names_in(answer: Answer) -> list[str] | None:
    """The models of an answer of /models; None if it cannot be read."""
    record = answer.json()
    rows = record.get("data") if isinstance(record, dict) and answer.status == 200 else None
    if not isinstance(rows, list):
        return None
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
