"""What an evaluation's samples were drawn from, and whether a folder's samples may be continued.

The manifest is written before the first sample (manifest.json) and is part of results.json.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dgpo_cli
from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.config.reward_names import paths_of
from dgpo_cli.errors import ConfigError, DataError, Problem
from dgpo_cli.evaluation.sample_file import ADVICE, SampleFile, write_json
from dgpo_cli.types import Grader, Prompt


def grader_facts(grader: Grader) -> dict[str, Any]:
    """The grader's name, and the number of its rules where they have changed: verdicts of two rules are never mixed."""
    rules = getattr(grader, "rules", None)
    return {"grader": grader.name} | ({} if rules is None else {"grader_rules": rules})


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
    """Of functions of the user's own, their files as they are now: nothing for the other graders."""
    if reward.path is None:
        return {}
    files = [Path(path.rpartition(":")[0]).expanduser() for path in paths_of(reward.path) if ":" in path]
    facts = {"path": reward.path, "sha256": files_sha256(dict.fromkeys(files))}
    return {"reward": facts if isinstance(reward.path, str) else facts | {"weights": reward.weights}}


def text_sha256(value: Any) -> str:
    """Hash of anything that JSON can hold; any text will do, half a surrogate pair included."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def prompt_hashes(prompts: list[Prompt]) -> dict[str, str]:
    """Of the problems with their golds, and of what the template and the tokenizer made of them."""
    return {
        "data_sha256": text_sha256([[p.problem.problem_id, p.problem.messages, p.problem.gold] for p in prompts]),
        "prompts_sha256": text_sha256([[p.text, p.token_ids] for p in prompts]),
    }


def claim(folder: Path, manifest: Mapping[str, Any], *, make_room: Callable[[list[str]], None] | None = None) -> None:
    """Write manifest.json, unless the folder's samples were drawn from something else or cannot be read.

    `make_room` is then called with what is wrong, and leaves the folder without samples; else they are refused.

    Raises:
        ConfigError: naming each entry that differs. Versions may differ, and so may the path of the same weights.
    """
    found = _differences(folder, manifest)
    if found and make_room is None:
        raise ConfigError("", problems=(*map(Problem, found[:-1]), Problem(found[-1], ADVICE)))
    if make_room is not None:
        found = found or _damage(folder / "samples.jsonl")
        if found:
            make_room(found)
    write_json(folder / "manifest.json", dict(manifest))


def _differences(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    samples = folder / "samples.jsonl"
    if not samples.is_file() or not samples.stat().st_size:
        return []
    try:
        stored = _leaves(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return [f"{folder} holds samples, and no readable manifest.json says of what"]
    here = _leaves(manifest)
    if "compute_dtype" in here and stored.get("model.dtype", "float32") == "float32":
        stored.setdefault("compute_dtype", "float32")  # as it was before manifests said so
    free = {"model.path"} if stored.get("model.weights_sha256") and here.get("model.weights_sha256") else set()
    return [
        f"{folder} holds samples of another evaluation: {name} is {stored.get(name)} there and {here.get(name)} here"
        for name in sorted({*stored, *here} - free)
        if not name.startswith("versions.") and stored.get(name) != here.get(name)
    ]


def _damage(samples: Path) -> list[str]:
    try:
        with SampleFile(samples):
            return []
    except DataError as error:
        return [str(error)]


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
