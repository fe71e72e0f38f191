"""What every section imports, imported once: the sections' processes are forked from one that has it.

Nothing here may start CUDA: a forked process could not use it (process.py notices that, and starts anew). What cannot
be imported is left to the sections, each of which then says why it fails.
"""

import contextlib
from importlib import import_module

for name in (
    "torch",
    "transformers.models.qwen2.modeling_qwen2",
    "dgpo_cli.commands.build",
    "dgpo_cli.commands.probe",
    "dgpo_cli.engines.transformers_engine",
):
    with contextlib.suppress(Exception):
        import_module(name)
