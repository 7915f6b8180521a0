"""Which errors say that memory is short, and what is given back."""

import errno
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from likeness.trainers import memory, memory_tiers
from likeness.trainers.memory import (
    is_out_of_memory,
    memory_advice,
    page_file_advice,
    set_mmap_threshold,
    trim_heap,
)
from likeness.trainers.presets import preset

ROOT = Path(__file__).resolve().parents[2]


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
        OSError(errno.ENOMEM, "Kein Speicher"),
        OSError("Die Auslagerungsdatei ist zu klein. (os error 1455)"),
        OSError("[WinError 1455] The paging file is too small. Error loading cublas64_12.dll"),
        RuntimeError("unable to mmap 4 bytes: Cannot allocate memory (12)"),
    ],
)
def test_lack_of_memory_is_known_whatever_library_says_it(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "text", ["CUBLAS_STATUS_NOT_INITIALIZED", "an illegal memory access", "(os error 121)", ""]
)
def test_other_errors_are_not_lack_of_memory(text):
    assert not is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize(
    "text",
    [
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
    ],
)
def test_a_broken_cudnn_was_taken_for_lack_of_memory(text, monkeypatch):
    assert not is_out_of_memory(RuntimeError(text))  # there is no GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for free, lack in ((200 << 20, True), (3 << 30, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 8 << 30))
        assert is_out_of_memory(RuntimeError(text)) == lack


def test_a_small_page_file_is_told_apart():
    small = OSError("[WinError 1455] The paging file is too small for this operation to complete")
    assert "page file" in page_file_advice(small)
    assert page_file_advice(OSError("(os error 14550)")) == ""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")
def test_freed_memory_goes_back_to_the_system():
    """It stays the process' own where something around it on the heap is still used."""
    process = psutil.Process()
    blocks = [b"x" * 65536 for _ in range(2000)]  # on the heap: glibc maps larger ones apart
    blocks[1::2] = [b""] * 1000
    held = process.memory_info().rss
    trim_heap()
    assert held - process.memory_info().rss > 40_000_000 and blocks[0]


HELD = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="likeness_main")["load_package"]()
import psutil
from likeness.trainers.memory import set_mmap_threshold
set_mmap_threshold(sys.argv[2] == "apart")
blocks = [b"x" * (4 << 20) for _ in range(40)]
held = psutil.Process().memory_info().rss
blocks[1::2] = [b""] * 20
print(held - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")
@pytest.mark.parametrize(("how", "least", "most"), [("apart", 7e7, 1e8), ("together", 0, 2e7)])
def test_blocks_kept_apart_go_back_at_once(how, least, most):
    # In a process of its own: blocks that fit into gaps of an older heap are put there.
    command = [sys.executable, "-c", HELD, str(ROOT / "__main__.py"), how]
    assert least <= int(subprocess.check_output(command)) < most


def test_blocks_are_kept_apart_from_1_mb_on_and_else_from_32(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "_glibc_function", lambda name: lambda *given: asked.append(given))
    set_mmap_threshold(True)
    set_mmap_threshold(False)
    assert asked == [(-3, 1 << 20), (-3, 32 << 20)]


def test_nothing_happens_without_glibc(monkeypatch):
    def none(name):
        raise TypeError("expected str")  # as on Windows

    monkeypatch.setattr(memory.ctypes, "CDLL", none)
    memory._glibc_function.cache_clear()
    try:
        trim_heap()
        set_mmap_threshold(True)
    finally:
        memory._glibc_function.cache_clear()


@pytest.mark.parametrize(
    ("release", "free", "share"),
    [
        ("6.8.0-31-generic", 10 << 30, None),  # Linux says when a GPU is full
        ("5.15.167.4-microsoft-standard-WSL2", 10 << 30, (10 * 1024 - 400) / (12 * 1024)),
        ("5.15.167.4-microsoft-standard-WSL2", 1 << 20, 1 / 8),
    ],
)
def test_where_the_driver_borrows_memory_of_the_host_torch_stays_on_the_gpu(
    monkeypatch, release, free, share
):
    set_to = []
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 12 << 30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_to.append)
    memory.prevent_sysmem_fallback()
    assert set_to == ([] if share is None else [pytest.approx(share)])


def test_advice_leaves_out_what_the_memory_tier_does_already():
    recipe = preset("standard").changed(optimizer={"name": "adamw"})
    assert "gradient_checkpointing" in memory_advice(recipe)
    assert "bitsandbytes" in memory_advice(recipe, memory_tiers.CHECKPOINTING)
    assert "gradient_checkpointing" not in memory_advice(recipe, memory_tiers.CHECKPOINTING)
    assert "8bit" not in memory_advice(recipe, memory_tiers.EIGHT_BIT)


def test_a_loras_optimizer_is_no_advice():
    recipe = preset("lora-r4").changed(optimizer={"name": "adamw"})
    assert "8bit" not in memory_advice(recipe)
