"""Rollouts as a file holds them, made up: realistic sizes, and text that means harm."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = [
    " the",
    " of",
    " we",
    " so",
    " x",
    " =",
    " +",
    " 2",
    " 12",
    " 7",
    ",",
    ".",
    "\n",
    " Let",
    " then",
    " therefore",
]
WORDS += [
    " substituting",
    " gives",
    " 42",
    " both",
    " sides",
    " is",
    "\n\n",
    " Answer",
    ":",
    " root",
    "ing",
    " multi",
    "ply",
]
WORDS += [
    "  ",
    "\t",
    " wait",
    " no",
    " check",
    "(",
    ")",
    "^",
    "\\frac",
    "{",
    "}",
    "$",
    " naïve",
    " 漢字",
    "<0xE2>",
    "<id:151700>",
]
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    "</style><img src=x onerror='window.hacked = 3'>",
    "<!--",
    "]]>",
    "&lt;b&gt;&amp;",
    "%DATA% %SCRIPT%",
    "\u2028\u2029",
    "\u202eevil\u202c\u2067x\u2069\u200f",
    "\x00\x1b[31m\x7f",
    "\ud800",
    "\u200b\ufeff\u00ad\u00a0",
    "שלום عليكم",
    "__proto__",
    "x" * 100_000,
    "",
]


def made_up(
    count: int, tokens: int, *, group_size: int = 8, seed: int = 0, texts: list[str] | None = None
) -> list[dict[str, Any]]:
    """`count` records of `tokens` tokens: heavy-tailed distances, entropies near 0, values float32."""
    draw = np.random.default_rng(seed)
    words = WORDS if texts is None else texts
    records = []
    for row in range(count):
        ids = draw.integers(0, len(words), tokens) if texts is None else np.arange(tokens) % len(words)
        spelled = [words[i] for i in ids]
        correct = bool(draw.random() < 0.4)
        logprobs = -draw.exponential(0.4, tokens)
        records.append(
            {
                "prompt_id": f"problem {row // group_size}",
                "sample": row % group_size,
                "prompt": f"Solve the problem number {row // group_size}: how many squares?\nAnswer with an integer.",
                "completion": "".join(spelled),
                "gold": "42",
                "answer": "42" if correct else "7",
                "reward": float(correct),
                "correct": correct,
                "error": None,
                "advantage": _float32(np.array([1.2 if correct else -0.8]))[0],
                "finish_reason": "stop",
                "token_ids": [int(i) for i in ids],
                "tokens": spelled,
                "logprobs": _float32(logprobs),
                "entropy": _float32(draw.gamma(0.3, 1.0, tokens)),
                "grad_norm": _float32(1.0 - np.exp(logprobs)),
                "ref_logprobs": _float32(logprobs + draw.normal(0, 0.1, tokens)),
                "hellinger": _float32(np.minimum(1.0, draw.lognormal(-7, 2, tokens))),
                "vocabulary_size": 151_936,
                "noise_floor": 1e-7,
                "control_seed": row,
            }
        )
    return records


def write_rollouts(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def page_data(page: str) -> dict[str, Any]:
    """What a credit page carries."""
    return dict(json.loads(page.partition('type="application/json">')[2].partition("</script>")[0]))


def page_credit(page: str) -> dict[str, list[list[float] | None]]:
    """gating -> credit of each rollout's tokens on a credit page, null where it was not scored: as in the file."""
    data = page_data(page)
    lengths = [rollout["counted"] for rollout in data["rollouts"]]
    found = {}
    for gating in data["gatings"]:
        column = data["columns"][gating["credit"]]
        values = iter(
            [column] * sum(lengths)
            if isinstance(column, float)
            else np.frombuffer(base64.b64decode(column), "<f4").tolist()
        )
        found[gating["label"]] = [[next(values) for _ in range(length)] or None for length in lengths]
    return found


def _float32(values: Any) -> list[float]:
    return [float(value) for value in values.astype(np.float32)]
