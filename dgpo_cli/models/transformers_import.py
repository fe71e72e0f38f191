"""Importing transformers without what it does at import for others: a third of a command's start is that import.

Two things are left out, and nothing that a model computes depends on them. The list of all model files is read from
disk twice, once for `transformers` and once for `transformers.models`: the second time it is what the first found. And
the losses of object detection, which stand beside those of language models, import all of scipy.optimize for one
function: it is imported when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from dgpo_cli.large_imports import imported

ASSIGNMENT = "scipy.optimize"  # what the losses of object detection match boxes with


def quiet_transformers() -> Any:
    """The library, its progress bars and its notes off."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    transformers: Any = imported("transformers")
    import huggingface_hub

    with _model_files_listed_once():
        imported("transformers.models")  # of every class with Auto in its name
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()  # without a network it tells of every attempt
    transformers.logging.disable_progress_bar()
    return transformers


def import_modelling() -> None:
    """Import what every model class of transformers stands on: most of what reading a small model takes."""
    with _assignment_when_called():
        imported("transformers.modeling_utils")


@contextmanager
def _model_files_listed_once() -> Iterator[None]:
    """Within, the list of a folder's files is found for the path of its __init__.py too, and not read again."""
    from transformers.utils import import_utils

    read = getattr(import_utils, "create_import_structure_from_path", None)
    if read is None or not hasattr(read, "cache_info"):  # another version, which does it some other way
        yield
        return
    import_utils.create_import_structure_from_path = lambda path: read(
        Path(path).parent if os.path.isfile(path) else path
    )
    try:
        yield
    finally:
        import_utils.create_import_structure_from_path = read


@contextmanager
def _assignment_when_called() -> Iterator[None]:
    """Within, `from scipy.optimize import linear_sum_assignment` gives a function that imports it when it is called."""
    spec = None if ASSIGNMENT in sys.modules or find_spec("scipy") is None else find_spec(ASSIGNMENT)
    if spec is None:
        yield
        return
    stand_in = ModuleType(ASSIGNMENT)

    def real() -> ModuleType:
        if sys.modules.get(ASSIGNMENT) is stand_in:
            del sys.modules[ASSIGNMENT]
        return importlib.import_module(ASSIGNMENT)

    def linear_sum_assignment(*args: Any, **kwargs: Any) -> Any:
        return real().linear_sum_assignment(*args, **kwargs)

    def other(name: str) -> Any:
        if name.startswith("__"):  # asked for by the import itself
            raise AttributeError(name)
        return getattr(real(), name)

    stand_in.__path__ = list(spec.submodule_search_locations or ())
    stand_in.__dict__.update(linear_sum_assignment=linear_sum_assignment, __getattr__=other)
    sys.modules[ASSIGNMENT] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(ASSIGNMENT) is stand_in:
            del sys.modules[ASSIGNMENT]
