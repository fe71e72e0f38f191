"""Memory of tensors: allocations that fail, on a GPU and on the CPU, and what becomes of memory that is freed."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys

import torch

CPU_ALLOCATOR = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
# Libraries take memory of a GPU beside the allocator, for handles and workspaces, and say it in words of their own.
LIBRARIES = re.compile(r"(CUBLAS|CUSOLVER|CUSPARSE|CUDNN|CUFFT)_(STATUS_)?ALLOC_FAILED|CUDA error: out of memory")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BLOCK = 2**28  # bytes of the largest block that is kept when it is freed
KEPT = 2**30  # bytes at the end of the heap that are kept
SETTINGS_OF_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


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


def keep_freed_memory() -> bool:
    """Let glibc keep up to a gibibyte of what is freed, for the next tensors; whether it does.

    It returns large blocks to the system at once otherwise, and the system clears each page anew: with a large
    vocabulary that was a third of a step on a CPU. A setting of the user's stays as it is.
    """
    if sys.platform != "linux" or any(name in os.environ for name in SETTINGS_OF_MALLOC):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is None:
        return False
    kept = mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK) or mallopt(M_MMAP_THRESHOLD, 2**25)  # what older versions take
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and kept)
