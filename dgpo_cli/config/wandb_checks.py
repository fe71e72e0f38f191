"""Where a run is logged, and which names W&B takes, as data.

W&B refuses the others when a run begins, offline too, and the recording is lost. wandb itself is not imported;
tests/config/test_wandb_checks.py holds these rules against its own validator. An empty name, or one of blanks alone, is
refused here besides: wandb would record it under a name that nobody chose.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

from dgpo_cli.config.groups import LoggerConfig, LoggerMode
from dgpo_cli.errors import Problem

TENSORBOARD = "tensorboard"
PROJECT_REFUSES = "/\\#?%:"
MOST_CHARACTERS = 128  # of a project
MOST_TAG_CHARACTERS = 64


def goes_to_wandb(logger: LoggerConfig) -> bool:
    """Whether a W&B run is made, as far as the configuration says."""
    return logger.name not in ("none", TENSORBOARD) and logger.mode is not LoggerMode.disabled


def goes_to_tensorboard(logger: LoggerConfig) -> bool:
    """Whether event files of TensorBoard are written."""
    return TENSORBOARD in logger.name.split("+")


def tensorboard(config: Any) -> Iterator[Problem]:
    """TensorBoard is an extra: without it nothing could be written."""
    if goes_to_tensorboard(config.logger) and importlib.util.find_spec("tensorboard") is None:
        yield Problem("logger=tensorboard: TensorBoard is not installed", "pip install 'dgpo[tensorboard]'")


def wandb_names(config: Any) -> Iterator[Problem]:
    """Problems of the names under which a run would be recorded; none if nothing is recorded."""
    logger: LoggerConfig = config.logger
    unset = logger.mode is LoggerMode.auto and os.environ.get("WANDB_MODE") == "disabled"
    if not goes_to_wandb(logger) or unset:
        return
    yield from _project(logger.project)
    for key, text in (("logger.group", logger.group), ("logger.job_type", logger.job_type), ("name", config.name)):
        if text is not None and (not text.strip() or len(text) > MOST_CHARACTERS):
            message = f"{key}: W&B takes 1 to {MOST_CHARACTERS} characters, got {_shown(text)}"
            yield Problem(message, f"{key}={_mended(text) or 'NAME'}")
    if logger.entity is not None and (wrong := _refused(logger.entity)):
        name = f"logger.entity: W&B takes no team or user {wrong}, got {_shown(logger.entity)}"
        yield Problem(name, f"logger.entity={_mended(logger.entity) or 'null'}")
    for tag in logger.tags:
        if not tag.strip() or len(tag) > MOST_TAG_CHARACTERS:
            message = f"logger.tags: W&B takes tags of 1 to {MOST_TAG_CHARACTERS} characters, got {_shown(tag)}"
            yield Problem(message, f"logger.tags=[{_mended(tag)[:MOST_TAG_CHARACTERS]}]")


def _project(project: str) -> Iterator[Problem]:
    wrong = _refused(project)
    if wrong:
        hint = f"logger.project={_mended(project) or 'dgpo'}; logger.mode=disabled records nothing"
        yield Problem(f"logger.project: W&B takes no project name {wrong}, got {_shown(project)}", hint)


def _refused(name: str) -> str:
    """W&B's objection to the name of a project, team or user; empty if it has none."""
    found = [char for char in PROJECT_REFUSES if char in name]
    if found:
        return f"with {' '.join(found)}"
    if len(name) > MOST_CHARACTERS:
        return f"of more than {MOST_CHARACTERS} characters ({len(name)})"
    if not name.strip():
        return "without a character"
    if not name.isprintable():
        return "with control characters"
    return ""


def _mended(name: str) -> str:
    """The nearest name that W&B takes and that a shell and Hydra's grammar take as it is."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:MOST_CHARACTERS].strip("-.")


def _shown(name: str) -> str:
    return f"'{name if len(name) <= 60 else name[:57] + '...'}'"
