"""What counts as a lack of memory."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from dgpo_cli.allocation import SETTINGS_OF_MALLOC, is_out_of_memory, keep_freed_memory


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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_kept_for_the_next_tensor_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    assert not keep_freed_memory()
    for name in SETTINGS_OF_MALLOC:
        monkeypatch.delenv(name, raising=False)
    assert keep_freed_memory()

    block = 2**26

    def pages() -> int:
        """Pages that the system cleared for a block of 64 MiB: 16,384 of 4 KiB if it is new."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        assert len(b"\1" * block) == block
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    pages()
    assert max(pages() for _ in range(3)) < 1000
