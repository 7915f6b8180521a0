"""Memory: which errors mean that it ran out, what a recipe can change, and releasing it."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
import re
from functools import cache
from typing import Any

from .memory_tiers import Tier
from .recipe import DreamBooth, Recipe

# 12 on Linux and macOS; 1455 on Windows, page file too small, whose text is localised.
_OS_ERROR_CODE = re.compile(r"os error (12|1455)\b|winerror 1455\b", re.IGNORECASE)
_LOW_MEMORY = 1 << 30  # free bytes of a GPU
_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_MMAP_SIZE, _MMAP_SIZE_MAX = 1 << 20, 32 << 20  # bytes


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of any library, means that the GPU or machine ran out of memory."""
    text = str(error).lower()
    if getattr(error, "errno", None) == errno.ENOMEM or _OS_ERROR_CODE.search(text):
        return True
    phrases = (
        *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
        *("_status_alloc_failed", "_allocation_failed"),  # cuBLAS's, cuDNN's
        "when calling `cublascreate",  # for a backward pass, outside PyTorch's allocator
    )
    if isinstance(error, MemoryError) or any(phrase in text for phrase in phrases):
        return True
    # cuDNN says these without memory for its handle or its workspaces, but also when it is broken,
    # which no lower memory tier would fix.
    ambiguous = (
        *("cudnn_status_not_initialized", "cudnn_status_internal_error"),
        *("unable to find an engine", "unable to find a valid cudnn algorithm"),
    )
    return any(phrase in text for phrase in ambiguous) and _gpu_is_full()


def _gpu_is_full() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _LOW_MEMORY


def page_file_advice(error: BaseException) -> str:
    """Advice if Windows refused to commit memory, which is not the GPU's; "" otherwise."""
    found = _OS_ERROR_CODE.search(str(error))
    if found is None or "1455" not in found[0]:
        return ""
    return "Windows' page file is too small: enlarge it (System, Performance, Advanced). "


def memory_advice(recipe: Recipe, tier: Tier | None = None) -> str:
    """What to change in this recipe, cheapest first, to end an error message with.

    Omits what `tier`, the memory tier in which the run failed, already does.
    """
    advice = []
    if recipe.schedule.batch_size > 1:
        together = recipe.schedule.batch_size * recipe.schedule.gradient_accumulation_steps
        advice.append(f"schedule.batch_size 1 with schedule.gradient_accumulation_steps {together}")
    checkpointing = recipe.compute.gradient_checkpointing or (tier and tier.checkpointing)
    if not checkpointing:
        advice.append("compute.gradient_checkpointing")
    eight_bit = recipe.optimizer.name == "adamw8bit" or (tier and tier.eight_bit)
    if not eight_bit and isinstance(recipe.method, DreamBooth):
        advice.append("optimizer.name adamw8bit (it needs the package bitsandbytes)")
    if recipe.compute.precision == "fp32":
        advice.append("compute.precision bf16 or fp16")
    if recipe.text_encoder.train:
        advice.append("text_encoder.train off")
    if recipe.subject.resolution > 256:
        advice.append(f"a subject.resolution below {recipe.subject.resolution}")
    if isinstance(recipe.method, DreamBooth):
        advice.append("a LoRA instead of DreamBooth")
    advice.append("closing other programs that use the GPU")
    return f"What helps, cheapest first: {'; '.join(advice)}."


_CONTEXT_RESERVE = 400 << 20  # bytes that libraries take outside PyTorch's allocator


def prevent_sysmem_fallback() -> None:
    """Keeps the GPU driver on Windows and WSL from spilling into system memory.

    There a full GPU raises no error: data move to system memory, steps become many times slower,
    and the run never falls back to a lower memory tier. Limits PyTorch to what is free now.
    """
    import torch

    if os.name != "nt" and "microsoft" not in platform.release().lower():
        return
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(max(free - _CONTEXT_RESERVE, total // 8) / total)


def release_memory() -> None:
    """Collects garbage and returns freed memory to the system and the GPU."""
    import torch  # slow to import, and the rest of this module works without it

    gc.collect()
    gc.collect()  # cycles held by tensors of the first pass, which hid them from the collector
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    elif torch.xpu.is_available():
        torch.xpu.empty_cache()
    trim_heap()


def trim_heap() -> None:
    """Returns freed memory that glibc retains to the system: see malloc_trim(3).

    A no-op with another C library. As weights of different sizes come and go, what glibc retains
    grows to the size of a model.
    """
    trim = _glibc_function("malloc_trim")
    if trim is not None:
        trim(0)


def set_mmap_threshold(low: bool) -> None:
    """Sets glibc's mmap threshold to 1 MB if `low`, else 32 MB: M_MMAP_THRESHOLD in mallopt(3).

    Blocks of at least that size that fit no gap in the heap are mapped: they return to the system
    as soon as they are freed and leave no gaps too small for the next model's weights, but cost
    more to allocate. 32 MB is what glibc itself reaches as blocks are freed.
    """
    option = _glibc_function("mallopt")  # Android's C library has mallopt too, with other constants
    if option is not None and _glibc_function("malloc_trim") is not None:
        option(_MMAP_THRESHOLD, _MMAP_SIZE if low else _MMAP_SIZE_MAX)


@cache
def _glibc_function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library; Windows needs a file name
        return None
