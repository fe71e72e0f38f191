"""The longest context that a model trains at, by strategy and GPU: the plan's memory of one sequence a micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dgpo_cli.planning.architecture import Adapters, Architecture
from dgpo_cli.planning.batches import ASSUMED_PROMPT_TOKENS
from dgpo_cli.planning.fitting import USABLE
from dgpo_cli.planning.memory import Batch, Generation, Setting, training_phases
from dgpo_cli.planning.pieces import heads_divide

STEP = 256  # tokens
SAMPLED = 8  # completions that a process draws together
PROCESSES = 8

# All compute in bfloat16 with activation checkpointing, beside a reference of the same size: of its own in the first
# four, in CPU memory between passes if a model is sharded; the same model with its adapters off in the last.
_BASE = Setting(device="cuda", compute_bytes=2, checkpointing=True, reference="copy")
_SHARDED = replace(_BASE, sharded=True, reference_offloaded=True)


@dataclass(frozen=True)
class Strategy:
    """A way to hold a model, how many processes share a sequence, and whether servers draw on GPUs of their own."""

    setting: Setting
    team: int = 1
    served: bool = False


STRATEGIES = {
    "single, ddp": Strategy(_BASE),
    "fsdp, 1 process": Strategy(_SHARDED),
    "fsdp": Strategy(replace(_SHARDED, shards=PROCESSES)),
    "fsdp, vLLM": Strategy(replace(_SHARDED, shards=PROCESSES), served=True),
    "fsdp, vLLM, sequence_parallel=4": Strategy(replace(_SHARDED, shards=PROCESSES), team=4, served=True),
    "fsdp_offload": Strategy(replace(_SHARDED, shards=PROCESSES, offloaded=True)),
    "single, LoRA": Strategy(replace(_BASE, weight_bytes=2, adapters=Adapters(16), reference="shared")),
}


def longest_context(model: Architecture, strategy: Strategy, gpu_bytes: int) -> int:
    """Prompt and completion together, in steps of 256 tokens; 0 if not even that fits.

    A sharded model is held whole while completions are sampled, or gathered layer by layer, whichever allows more.
    """
    if not heads_divide(model.heads, model.kv_heads, strategy.team):
        return 0
    ways = [strategy]
    if strategy.setting.sharded:
        ways.append(replace(strategy, setting=replace(strategy.setting, generates_gathered=False)))
    return max(_longest(_fits(model, one, gpu_bytes), model.max_positions or 2**20) for one in ways)


def _fits(model: Architecture, strategy: Strategy, gpu_bytes: int) -> Callable[[int], bool]:
    def fits(width: int) -> bool:
        prompt = min(ASSUMED_PROMPT_TOKENS, width // 2)
        batch = Batch(rows=1, width=width, counted=width - prompt, micro_batches=2, team=strategy.team)
        drawn = Generation(SAMPLED, width, prompt)
        phases = training_phases(model, strategy.setting, batch, drawn, scores_first=True)
        if strategy.served:
            del phases["rollout"]
        return max(phase.total for phase in phases.values()) <= USABLE * gpu_bytes

    return fits


def _longest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest multiple of STEP up to the limit that fits; memory grows with the width."""
    low, high = 0, limit // STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * STEP) else (low, middle - 1)
    return low * STEP
