"""Files of a run's folder, each read whole; what cannot be read is named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgpo_cli.errors import DataError

Json = dict[str, Any]


def read_yaml(path: Path) -> Json:
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected the configuration of a run, found {type(content).__name__}")
    return content


def as_yaml(value: Any) -> str:
    """A value of a configuration in one line, as YAML writes it: true, null, [1, 2]."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return str(text).removesuffix("...\n").strip()


def read_json(path: Path) -> Json:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object {{...}}, found {type(content).__name__}")
    return content


def read_rows(path: Path) -> list[Json]:
    """The rows of a JSONL file; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number}: not JSON: {line[:60]!r}") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def flat(record: Mapping[str, Any], prefix: str = "") -> Json:
    found: Json = {}
    for key, value in record.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
