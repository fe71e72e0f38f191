"""What counts as a lack of memory, and what becomes of memory that is freed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from dgpo_cli.allocation import SETTINGS_OF_MALLOC, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUBLAS_STATUS_ALLOC_FAILED"), False),
    ],
)
def test_libraries_that_get_no_memory_say_it_in_their_own_words(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_torch_says_of_the_cpu_that_it_has_no_memory() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60)
    assert is_out_of_memory(found.value)


PAGES = """
import os, resource
from dgpo_cli.allocation import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert len(b"\\1" * 2**26) == 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
pages()
print(kept, max(pages() for _ in range(3)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("setting", "expected"), [(None, True), ("65536", False)])
def test_freed_memory_is_kept_for_the_next_tensor_unless_the_user_says_otherwise(
    setting: str | None, expected: bool
) -> None:
    """A block of 64 MiB is 16,384 pages that the system clears, if it is new. Of a process whose heap nobody used."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS_OF_MALLOC}
    environment |= {} if setting is None else {"MALLOC_TRIM_THRESHOLD_": setting}
    done = subprocess.run([sys.executable, "-c", PAGES], env=environment, capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    assert kept == str(expected)
    assert (int(pages) < 1000) == expected
