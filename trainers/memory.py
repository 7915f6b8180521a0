"""Memory: which errors say that it is short, what a recipe can change, and giving it back."""

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

# Of Linux and macOS, and of Windows with too small a page file: its words are in its language.
_OS_ERROR_CODE = re.compile(r"os error (12|1455)\b|winerror 1455\b", re.IGNORECASE)
_LOW_MEMORY = 1 << 30  # bytes of a GPU
_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_MMAP_SIZE, _MMAP_SIZE_MAX = 1 << 20, 32 << 20  # bytes


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library says that the GPU or the machine has no memory left."""
    text = str(error).lower()
    if getattr(error, "errno", None) == errno.ENOMEM or _OS_ERROR_CODE.search(text):
        return True
    said = (
        *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
        *("_status_alloc_failed", "_allocation_failed"),  # of cuBLAS, and cuDNN's
        "when calling `cublascreate",  # a backward pass's own handle, beside PyTorch's allocator
    )
    if isinstance(error, MemoryError) or any(words in text for words in said):
        return True
    # cuDNN's answers where there is no room to work, for its handle or its kernels; and where it
    # is broken, which no lower memory tier mends.
    either = (
        *("cudnn_status_not_initialized", "cudnn_status_internal_error"),
        *("unable to find an engine", "unable to find a valid cudnn algorithm"),
    )
    return any(words in text for words in either) and _gpu_is_full()


def _gpu_is_full() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _LOW_MEMORY


def page_file_advice(error: BaseException) -> str:
    """What helps where Windows has no memory to promise, which is not the GPU's; "" elsewhere."""
    found = _OS_ERROR_CODE.search(str(error))
    if found is None or "1455" not in found[0]:
        return ""
    return "Windows' page file is too small: a larger one helps (System, Performance, Advanced). "


def memory_advice(recipe: Recipe, tier: Tier | None = None) -> str:
    """What to change in this recipe, the cheapest first, as the end of an error message.

    What the memory tier does already, in which the run came to its end, is left out.
    """
    advice = []
    if recipe.schedule.batch > 1:
        together = recipe.schedule.batch * recipe.schedule.accumulation
        advice.append(f"schedule.batch 1 with schedule.accumulation {together}")
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
        advice.append("a LoRA in place of DreamBooth")
    advice.append("closing other programs that use the GPU")
    return f"What helps, the cheapest first: {'; '.join(advice)}."


_CONTEXT_RESERVE = 400 << 20  # bytes that libraries take beside PyTorch's allocator


def prevent_sysmem_fallback() -> None:
    """On Windows and WSL, keeps PyTorch out of the memory that the GPU's driver borrows elsewhere.

    There a full GPU is no error: its data go to the host's memory, steps become many times slower,
    and no lower memory tier is taken. The limit is what is free now.
    """
    import torch

    if os.name != "nt" and "microsoft" not in platform.release().lower():
        return
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(max(free - _CONTEXT_RESERVE, total // 8) / total)


def release_memory() -> None:
    """Gives back what nothing refers to any more: to the system, and to the GPU."""
    import torch  # slow to import, and advice is asked for without it

    gc.collect()
    gc.collect()  # cycles that tensors of the first ones held, which the collector cannot see
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    elif torch.xpu.is_available():
        torch.xpu.empty_cache()
    trim_heap()


def trim_heap() -> None:
    """Returns freed memory that the C library keeps for later to the system.

    Does nothing where that library is not glibc: see malloc_trim(3). With weights coming and going
    in other sizes, what glibc keeps grows to the size of a model.
    """
    trim = _glibc_function("malloc_trim")
    if trim is not None:
        trim(0)


def set_mmap_threshold(yes: bool) -> None:
    """Sets whether blocks from 1 MB on that find no gap in glibc's heap get memory of their own.

    That goes back to the system as soon as it is freed, and leaves no gap that the next model's
    weights do not fit into; to get it costs more. Otherwise only blocks from 32 MB have it, to
    which glibc comes by itself as blocks are freed: M_MMAP_THRESHOLD in mallopt(3).
    """
    option = _glibc_function("mallopt")  # Android's C library has one too, with other numbers
    if option is not None and _glibc_function("malloc_trim") is not None:
        option(_MMAP_THRESHOLD, _MMAP_SIZE if yes else _MMAP_SIZE_MAX)


@cache
def _glibc_function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library; on Windows, no name for it
        return None
