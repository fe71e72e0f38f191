"""What every section imports, imported once: the sections' processes are forked from one that has it.

Nothing here may start CUDA: a forked process could not use it (process.py notices that, and starts anew).
"""

import torch
import transformers.models.qwen2.modeling_qwen2

import dgpo_cli.commands.build
import dgpo_cli.commands.probe
import dgpo_cli.engines.transformers_engine

__all__ = ["dgpo_cli", "torch", "transformers"]
