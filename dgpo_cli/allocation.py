"""Allocations that fail: what torch says then, on a GPU and on the CPU."""

from __future__ import annotations

import gc
import re

import torch

CPU_ALLOCATOR = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
# Libraries take memory of a GPU beside the allocator, for handles and workspaces, and say it in words of their own.
LIBRARIES = re.compile(r"(CUBLAS|CUSOLVER|CUSPARSE|CUDNN|CUFFT)_(STATUS_)?ALLOC_FAILED|CUDA error: out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU. Not all of them are errors of a kind of their own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error) if isinstance(error, RuntimeError) else ""
    return CPU_ALLOCATOR.search(said) is not None or LIBRARIES.search(said) is not None


def reason(error: BaseException) -> str:
    """The first line, without the C++ place that it came from."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    found = CPU_ALLOCATOR.search(text)
    return text[found.start() :] if found else text


def give_back() -> None:
    """Return to the GPU what torch keeps of it for later allocations; nothing on a CPU."""
    if torch.cuda.is_initialized():
        gc.collect()  # tensors in circles of references count as used
        torch.cuda.empty_cache()
