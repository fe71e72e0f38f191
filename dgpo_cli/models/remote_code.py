"""Python code that comes with a model (model.trust_remote_code), for processes that do not load the model themselves.

transformers copies such code into a folder of modules of its own, of the machine and user that loaded the model. The
shards of a model come as a skeleton, whose classes the other processes have to find there, too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from dgpo_cli.files import write_atomically

PACKAGE = "transformers_modules"


def sources() -> dict[str, str]:
    """The modules of such code that this process has imported: paths below the folder, and what is in them."""
    found: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(f"{PACKAGE}.") and file:
            parts = name.split(".")
            relative = Path(*parts, "__init__.py") if Path(file).name == "__init__.py" else Path(*parts)
            path = relative if relative.suffix == ".py" else relative.with_name(f"{relative.name}.py")
            found[path.as_posix()] = Path(file).read_text(encoding="utf-8")
    return found


def admit(code: Mapping[str, str]) -> None:
    """Put code that another process has imported where transformers would have put it, unless it is there."""
    if not code:
        return
    from transformers.dynamic_module_utils import init_hf_modules
    from transformers.utils import HF_MODULES_CACHE

    init_hf_modules()
    root = Path(HF_MODULES_CACHE)
    for name, text in code.items():
        path = root / name
        for folder in (path.parent, *path.parent.parents):
            if folder == root:
                break
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "__init__.py").exists():
                write_atomically(folder / "__init__.py", "")
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)
    importlib.invalidate_caches()
