"""Which errors say that memory is short, and what is given back."""

import platform

import psutil
import pytest
import torch
from likeness.trainers import memory
from likeness.trainers.memory import is_out_of_memory, keep_apart, trim_heap


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        MemoryError(),
    ],
)
def test_lack_of_memory_is_known_whatever_library_says_it(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("text", ["CUBLAS_STATUS_NOT_INITIALIZED", "an illegal memory access", ""])
def test_other_errors_are_not_lack_of_memory(text):
    assert not is_out_of_memory(RuntimeError(text))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")
def test_freed_memory_goes_back_to_the_system():
    """It stays the process' own where something around it on the heap is still used."""
    process = psutil.Process()
    blocks = [b"x" * 65536 for _ in range(2000)]  # on the heap: glibc maps larger ones apart
    blocks[1::2] = [b""] * 1000
    held = process.memory_info().rss
    trim_heap()
    assert held - process.memory_info().rss > 40_000_000 and blocks[0]


def test_blocks_are_kept_apart_from_1_mb_on_and_else_from_32(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "_of_glibc", lambda name: lambda *given: asked.append(given))
    keep_apart(True)
    keep_apart(False)
    assert asked == [(-3, 1 << 20), (-3, 32 << 20)]


def test_nothing_happens_without_glibc(monkeypatch):
    def none(name):
        raise TypeError("expected str")  # as on Windows

    monkeypatch.setattr(memory.ctypes, "CDLL", none)
    memory._of_glibc.cache_clear()
    try:
        trim_heap()
        keep_apart(True)
    finally:
        memory._of_glibc.cache_clear()
