"""What the names of strategies mean, said once for checks, plan and placement."""

from __future__ import annotations

SHARDED = ("fsdp", "fsdp_offload")  # weights, gradients and optimizer are spread over the processes
OFFLOADED = "fsdp_offload"  # and they rest in CPU memory between passes
