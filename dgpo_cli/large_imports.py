"""Importing torch and transformers, the largest part of what a command takes to start.

The cyclic garbage collector goes through all objects again and again while they only become more: a tenth of the time
from a command to its first step. It rests meanwhile, and takes no further interest in what an import has made.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from types import ModuleType


def imported(name: str) -> ModuleType:
    """The module `name`, with all that it imports."""
    # Of a module that is there, the collector would forget what a program has made since, and not the module alone.
    if name in sys.modules or not gc.isenabled():
        return importlib.import_module(name)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
        # Libraries complain of what is not freed at the end.
        atexit.unregister(gc.unfreeze)
        atexit.register(gc.unfreeze)
