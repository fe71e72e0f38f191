"""A judge: a model behind an OpenAI-compatible server gives each completion 0 to 10 points.

    JUDGE_URL=http://127.0.0.1:8000/v1 dgpo train data.path=recipes/rewards/problems.jsonl \
        reward.path=recipes/rewards/judge.py:score reward.timeout_seconds=120

JUDGE_URL     address of the API (vLLM, SGLang, llama.cpp, a provider)
JUDGE_MODEL   the model's name on the server; without it the only one that the server lists
JUDGE_KEY     the key, if the server wants one
JUDGE_CACHE   a file of earlier judgements, judge_cache.sqlite3 here if not named: the same question is asked once

A lost connection, a time-out, 408, 409, 425, 429 and 5xx are asked again, TRIES times in all, backing off. A judge that
names no points is asked again too. A completion that has no judgement then has no score (`reward/errors` counts it);
any other answer of the server, such as 401, ends the run.
"""

import hashlib
import json
import os
import random
import re
import sqlite3
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import cache

TRIES = 4
SECONDS = 60.0  # longest wait for one answer
AT_ONCE = 8  # questions at a time, in each of reward.workers processes
AGAIN = (408, 409, 425, 429)
POINTS = re.compile(r"Points:\s*(10|\d)(?:\s*/\s*10)?\b")
QUESTION = """Judge how well the response solves the problem. The reference answer is {answer}.

Problem:
{prompt}

Response:
{completion}

Give 0 to 10 points: 10 for a right answer with sound, clear steps, 0 for a wrong one without sense.
End with a line of the form "Points: 7"."""


def score(prompts, completions, answer):
    """A batch: the completions of one prompt are judged side by side. None is no score."""
    questions = [
        QUESTION.format(prompt=_text(prompt), completion=_text(completion), answer=gold)
        for prompt, completion, gold in zip(prompts, completions, answer, strict=True)
    ]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        points = list(threads.map(judged, questions))
    return [None if one is None else one / 10 for one in points]


def _text(turns):
    """Text as it is; chat messages one after another."""
    return turns if isinstance(turns, str) else "\n\n".join(turn["content"] for turn in turns)


def judged(question: str) -> int | None:
    """The points for a question, from the cache if it was asked before; None if the judge never names any."""
    key = hashlib.sha256(json.dumps([url(), model(), question]).encode()).hexdigest()
    with _cache() as cached:
        found = cached.execute("SELECT points FROM judgements WHERE key = ?", (key,)).fetchone()
    if found:
        return int(found[0])
    for attempt in range(TRIES):
        payload = {"model": model(), "messages": [{"role": "user", "content": question}], "temperature": 0.0}
        reply = ask("/chat/completions", payload | {"seed": attempt, "max_tokens": 1024})
        points = None if reply is None else POINTS.findall(reply["choices"][0]["message"]["content"] or "")
        if points:
            with _cache() as cached:
                cached.execute("INSERT OR REPLACE INTO judgements VALUES (?, ?)", (key, int(points[-1])))
            return int(points[-1])
        if reply is None:
            return None
    return None


def ask(path: str, payload: dict[str, object] | None = None):
    """The server's answer, or None after TRIES attempts that could be made again."""
    headers = {"Content-Type": "application/json"}
    if os.environ.get("JUDGE_KEY"):
        headers["Authorization"] = f"Bearer {os.environ['JUDGE_KEY']}"
    data = None if payload is None else json.dumps(payload).encode()
    for attempt in range(TRIES):
        if attempt:
            time.sleep(random.uniform(0.5, 1.0) * 2 ** (attempt - 1))
        try:
            request = urllib.request.Request(url() + path, data=data, headers=headers)
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in AGAIN and error.code < 500:
                raise
        except (OSError, ValueError):  # a lost connection, a time-out, half an answer
            pass
    return None


def url() -> str:
    if "JUDGE_URL" not in os.environ:
        raise ValueError("JUDGE_URL is not set: the address of an OpenAI-compatible API, http://127.0.0.1:8000/v1")
    return os.environ["JUDGE_URL"].rstrip("/")


@cache
def model() -> str:
    if os.environ.get("JUDGE_MODEL"):
        return os.environ["JUDGE_MODEL"]
    listed = ask("/models")
    if listed is None or len(listed["data"]) != 1:
        raise ValueError(f"JUDGE_MODEL is not set, and {url()} does not list one model: {listed}")
    return str(listed["data"][0]["id"])


class _cache:
    """The file of judgements, open for one statement: processes and threads share it."""

    def __enter__(self) -> sqlite3.Connection:
        self._file = sqlite3.connect(os.environ.get("JUDGE_CACHE", "judge_cache.sqlite3"), timeout=60)
        self._file.execute("CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, points INTEGER)")
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.commit()
        self._file.close()
