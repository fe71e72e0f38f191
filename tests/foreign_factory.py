"""Small files as other trainers write them, made by hand after docs/rollouts.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def verl_rows() -> list[dict[str, Any]]:
    """Two prompts of one step, two answers each; the last has no score."""
    return [
        {"input": "1 + 1 =", "output": " 2", "gts": "2", "score": 1.0, "step": 4, "acc": True, "overlong": -0.5},
        {"input": "2 + 1 =", "output": " 3", "gts": "3", "score": 1.0, "step": 4},
        {"input": "1 + 1 =", "output": " 7 8", "gts": "2", "score": 0.0, "step": 4},
        {"input": "2 + 1 =", "output": " né漢", "gts": "3", "score": None, "step": 4},
    ]


def trl_rows() -> list[dict[str, Any]]:
    """Two reward functions, one of which gave no number once; chat prompts and a text prompt."""
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1 ="}]
    return [
        {
            "step": 10,
            "prompt": chat,
            "completion": [{"role": "assistant", "content": "2"}],
            "right": 1.0,
            "brief": 0.5,
            "advantage": 0.7,
        },
        {
            "step": 10,
            "prompt": chat,
            "completion": [{"role": "assistant", "content": "three"}],
            "right": 0.0,
            "brief": float("nan"),
            "advantage": -0.7,
        },
    ]


def write_trl(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(trl_rows()), path)
    return path


def trace(answer: str = "2", *, reward: float = 1.0, **more: Any) -> dict[str, Any]:
    """A trace of prime-rl: a prompt of three tokens, the last of them the answer's scaffold, and two drawn tokens."""
    return {
        "nodes": [
            {
                "parent": None,
                "message": {"role": "user", "content": "1 + 1 ="},
                "token_ids": [5, 6],
                "mask": [False] * 2,
            },
            {
                "parent": 0,
                "message": {"role": "assistant", "content": answer},
                "sampled": True,
                "token_ids": [7, 8, 9],
                "mask": [False, True, True],
                "logprobs": [-0.5, -0.25],
                "advantages": [0.5, 0.5],
            },
        ],
        "calls": [{"finish_reason": "stop"}],
        "rewards": {"right": {"score": reward, "weight": 2.0}, "late": None},
        "metrics": {"turns": 1.0},
        "info": {"prime_rl": {"group_id": "g1", "policy_version": 3}},
        **more,
    }
