"""Per-token weights and advantages as a file that any trainer reads: npz, JSONL or Parquet (docs/rollouts.md)."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from dgpo_cli.errors import DataError
from dgpo_cli.files import to_json
from dgpo_cli.records.regated import Gated
from dgpo_cli.records.stored_rollouts import StoredRollouts


def exported(stored: StoredRollouts, gated: Gated) -> list[dict[str, Any]]:
    """One row a rollout, in the order of rollouts.jsonl; token lists are empty if it was not scored.
    An id that is not stored is -1.

    `weights` is credit, mean 1 over a completion's counted tokens (a mask: over the batch). `advantages` is
    weights * `advantage`, NaN if that is not known.
    """
    rows = []
    for row, record in enumerate(stored.records):
        length = int(stored.signals.mask[row].sum())
        advantage = record.get("advantage")
        value = math.nan if advantage is None else float(advantage)
        weights = gated.credit.weights[row, :length].double().numpy()
        rows.append(
            {
                "prompt_id": str(record.get("prompt_id")),
                "sample": record.get("sample"),
                "prompt": record.get("prompt"),
                "advantage": value,
                "token_ids": (record.get("token_ids") or [-1] * length)[:length],
                "weights": weights.astype(np.float32).tolist(),
                "advantages": (weights * value).astype(np.float32).tolist(),
            }
        )
    return rows


def encoded(rows: list[dict[str, Any]], ending: str) -> bytes:
    """The file's bytes. JSON has no NaN: null there.

    Raises:
        DataError: Parquet without pyarrow.
    """
    if ending == ".npz":
        return _npz(rows)
    if ending == ".parquet":
        return _parquet(rows)
    return "".join(to_json(row) + "\n" for row in rows).encode("utf-8", errors="backslashreplace")


def _npz(rows: list[dict[str, Any]]) -> bytes:
    """Ragged: the tokens of row i are those from offsets[i] to offsets[i + 1]."""
    lengths = [len(row["weights"]) for row in rows]

    def joined(name: str, dtype: Any) -> Any:
        return np.concatenate([np.asarray(row[name], dtype) for row in rows])

    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        prompt_id=np.array([row["prompt_id"] for row in rows]),
        sample=np.array([-1 if row["sample"] is None else row["sample"] for row in rows], np.int64),
        advantage=np.array([row["advantage"] for row in rows], np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        token_ids=joined("token_ids", np.int64),
        weights=joined("weights", np.float32),
        advantages=joined("advantages", np.float32),
    )
    return stream.getvalue()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("export: writing Parquet needs pyarrow", "pip install 'dgpo[parquet]', or .npz") from error
    floats = pyarrow.list_(pyarrow.float32())
    schema = pyarrow.schema(
        [
            ("prompt_id", pyarrow.string()),
            ("sample", pyarrow.int64()),
            ("prompt", pyarrow.string()),
            ("advantage", pyarrow.float32()),
            ("token_ids", pyarrow.list_(pyarrow.int64())),
            ("weights", floats),
            ("advantages", floats),
        ]
    )
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), stream)
    return stream.getvalue()
