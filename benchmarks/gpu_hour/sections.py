"""Which sections there are, the most important first. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

COMPOSES = ("hydra", "omegaconf")  # what a configuration is composed with


@dataclass(frozen=True)
class Section:
    """A part of the hour.

    function  module:name in this package
    seconds   its limit on a GPU; that of the first holds the imports, too
    needs     modules beside torch and transformers: of extras, but for those of COMPOSES
    gpu_gib   memory of the GPU
    skipped   why it never runs here
    """

    name: str
    function: str
    seconds: float
    needs: tuple[str, ...] = ()
    gpu_gib: int = 0
    skipped: str = ""

    def missing(self) -> list[str]:
        return [name for name in self.needs if find_spec(name) is None]


SECTIONS = (
    Section("machine", "scoring:machine", 90),
    Section("scoring", "scoring:exactness", 80),
    Section("scoring_speed", "scoring:speed", 60),
    Section("default_run", "runs:default_run", 110, COMPOSES),
    Section("sampler_gap", "steps:sampler_gap", 30),
    Section("memory", "memory:planned", 100, COMPOSES),
    Section("memory_lora", "memory:planned_lora", 50, (*COMPOSES, "peft")),
    Section("memory_fsdp", "memory:planned_fsdp", 50, COMPOSES),
    Section("resume", "runs:resume", 60, COMPOSES),
    Section("out_of_memory", "memory:halving", 40, COMPOSES),
    Section("step_0.5B", "steps:step_small", 45, COMPOSES),
    Section("step_7B", "steps:step_large", 55, COMPOSES),
    Section("step_32B_lora", "steps:step_lora", 75, (*COMPOSES, "peft"), gpu_gib=110),
    Section("decode", "steps:decode", 40),
    Section("reference_offload", "memory:offloaded_reference", 45, COMPOSES),
    Section("packing", "steps:packed", 40, COMPOSES),
    Section("compile", "steps:compiled", 75, COMPOSES),
    Section("colocated", "", 0, ("vllm",), skipped="needs servers of vLLM on this GPU: tests/install_vllm.sh, then "
            "dgpo train engine=vllm engine.colocated=true"),
)  # fmt: skip
# What a section would run on, and which extra of dgpo brings it.
EXTRAS = {"peft": "lora", "bitsandbytes": "quantization", "vllm": "engine=vllm", "wandb": "logger=wandb",
          "tensorboard": "tensorboard", "datasets": "hub", "math_verify": "math", "pyarrow": "parquet"}  # fmt: skip
