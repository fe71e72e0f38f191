"""What an evaluation's samples were drawn from, and whether a folder's samples may be continued.

The manifest is written before the first sample (manifest.json) and is part of results.json.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dgpo_cli
from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.errors import ConfigError, Problem
from dgpo_cli.evaluation.files import write_json
from dgpo_cli.types import Prompt

ADVICE = "overwrite=true starts again in this folder, hydra.run.dir=FOLDER takes another"


def versions() -> dict[str, str | None]:
    """Of what the numbers depend on, read without importing any of it."""
    return {
        "dgpo": dgpo_cli.__version__,
        "torch": _installed("torch"),
        "transformers": _installed("transformers"),
        "python": platform.python_version(),
    }


def files_sha256(files: Iterable[Path]) -> str | None:
    """One hash over files in the order given, each with its name; None without any."""
    digest, found = hashlib.sha256(), False
    for file in files:
        with file.open("rb") as stream:
            digest.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        found = True
    return digest.hexdigest() if found else None


def reward_facts(reward: RewardConfig) -> dict[str, Any]:
    """Of a user's own function, its file as it is now: nothing for the other graders."""
    if reward.path is None:
        return {}
    file = Path(reward.path.rpartition(":")[0]).expanduser()
    return {"reward": {"path": reward.path, "sha256": files_sha256([file])}}


def text_sha256(value: Any) -> str:
    """Hash of anything that JSON can hold; any text will do, half a surrogate pair included."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def prompt_hashes(prompts: list[Prompt]) -> dict[str, str]:
    """Of the problems with their golds, and of what the template and the tokenizer made of them."""
    return {
        "data_sha256": text_sha256([[p.problem.problem_id, p.problem.messages, p.problem.gold] for p in prompts]),
        "prompts_sha256": text_sha256([[p.text, p.token_ids] for p in prompts]),
    }


def claim(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json, unless the folder's samples were drawn from something else.

    Raises:
        ConfigError: naming each entry that differs. Versions may differ, and so may the path of the same weights.
    """
    path = folder / "manifest.json"
    if (folder / "samples.jsonl").is_file() and (folder / "samples.jsonl").stat().st_size:
        try:
            stored = _leaves(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{folder} holds samples, and no readable manifest.json says of what", ADVICE) from error
        here = _leaves(manifest)
        free = {"model.path"} if stored.get("model.weights_sha256") and here.get("model.weights_sha256") else set()
        problems = [
            Problem(
                f"{folder} holds samples of another evaluation: {name} is {stored.get(name)} there and "
                f"{here.get(name)} here"
            )
            for name in sorted({*stored, *here} - free)
            if not name.startswith("versions.") and stored.get(name) != here.get(name)
        ]
        if problems:
            raise ConfigError("", problems=(*problems[:-1], Problem(problems[-1].message, ADVICE)))
    write_json(path, dict(manifest))


def _leaves(record: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of nested objects by its dotted path."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
