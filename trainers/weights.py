"""Model weight files: read lazily, written one tensor at a time."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import torch
from packaging.version import Version
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from .errors import BaseModelError, OutOfSpace, RunFailed
from .files import atomic_file, make_folder
from .memory import is_out_of_memory
from .safetensors_file import header_bytes

_SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_MARGIN = 16 << 20  # bytes to leave free on the disk
_MIN_SAFE_TORCH = Version("2.6")  # before, even weights_only could run code

# What torch raises for a damaged pickle, besides UnpicklingError.
_LOAD_ERRORS = (
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError),
    *(struct.error, zipfile.BadZipFile),
)


def refuse_unsafe_pickles(path: Path) -> None:
    """Raises BaseModelError, for a pickle, if PyTorch is older than 2.6 (CVE-2025-32434)."""
    if Version(torch.__version__) < _MIN_SAFE_TORCH:
        raise BaseModelError(
            f"{path.name} is a pickle, which can run code when PyTorch {torch.__version__} loads "
            f"it: update PyTorch to {_MIN_SAFE_TORCH} or newer, or convert it to .safetensors."
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU and memory-mapped: they are read when first used.

    A pickle (.ckpt, .pt, .bin) is loaded by torch's weights-only loader, which runs no code;
    tensors under ``state_dict`` are taken from there.

    Raises:
        BaseModelError: the file is damaged, a pickle of more than weights, or any pickle with a
            PyTorch older than 2.6.
        OSError, RuntimeError: out of memory (`memory.is_out_of_memory`).
    """
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(str(path))
        except (SafetensorError, OSError) as error:
            if is_out_of_memory(error):
                raise
            raise BaseModelError(f"{path.name} is damaged: {error}. Download it again.") from None
    refuse_unsafe_pickles(path)
    try:
        # A zip archive (torch 1.6 and later) can be mapped; older formats cannot.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        raise BaseModelError(
            f"{path.name} is damaged or contains more than weights. It was not opened, because "
            f"such a file can run code: convert it to .safetensors. ({str(error).splitlines()[0]})"
        ) from None
    except _LOAD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise BaseModelError(f"{path.name} is damaged: {error}. Download it again.") from None
    table = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise BaseModelError(f"{path.name} contains no state dict.")
    return {str(key): value for key, value in table.items() if isinstance(value, Tensor)}


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file in `dtype`; scalars stay fp32. Equal arguments give equal bytes.

    Tensors may be on any device; one at a time is converted. The data is read back and compared
    before the file gets its name, so the file is complete or absent.

    Raises:
        OutOfSpace: the disk has too little space.
        RunFailed: a weight is not finite in `dtype`, or the disk returned other values.
    """
    make_folder(path.parent)
    header, size = _header(tensors, dtype, metadata)
    _check_free_space(path.parent, size, free=shutil.disk_usage(path.parent).free - _MARGIN)
    compare = partial(_verify, tensors=tensors, dtype=dtype)
    try:
        with atomic_file(path, exclusive=True, check=compare) as file:
            file.write(header)
            for _, tensor in _converted(tensors, dtype):
                file.write(tensor.numpy().data)
    except OSError as error:
        _check_free_space(path.parent, size, free=shutil.disk_usage(path.parent).free)
        raise RunFailed(f"{path} cannot be written: {error.strerror}.") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file of tensors in their own dtypes, flushed to the disk.

    Tensors may be on any device; one at a time is in host memory. Raises OSError.
    """
    header, _ = _header(tensors, None, {})
    with open(path, "wb") as file:
        file.write(header)
        for name in _write_order(tensors, None):
            flat = tensors[name].detach().cpu().contiguous().view(-1)
            file.write(flat.view(torch.uint8).numpy().data)  # numpy has no bfloat16
            del flat
        file.flush()
        os.fsync(file.fileno())


def file_matches(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: Mapping[str, str]
) -> bool:
    """Whether a file equals what `write_weights` would write."""
    header, size = _header(tensors, dtype, metadata)
    if path.stat().st_size != size:
        return False
    with open(path, "rb") as file:
        if file.read(len(header)) != header:
            return False
    return _equal(path, tensors, dtype)


def _header(
    tensors: Mapping[str, Tensor], dtype: torch.dtype | None, metadata: Mapping[str, str]
) -> tuple[bytes, int]:
    """The bytes before the tensors, and the size of the whole file."""
    entries, end = dict[str, object](), 0
    for name in _write_order(tensors, dtype):
        kind = _stored_dtype(tensors[name], dtype)
        begin, end = end, end + tensors[name].numel() * kind.itemsize
        shape = list(tensors[name].shape)
        entries[name] = {
            "dtype": _SAFETENSORS_DTYPES[kind],
            "shape": shape,
            "data_offsets": [begin, end],
        }
    header = header_bytes(entries, {**metadata, "format": "pt"})
    return header, len(header) + end


def _write_order(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> list[str]:
    """The names, widest dtypes first, so that all are aligned; scalars before others."""

    def rank(name: str) -> tuple[int, bool, str]:
        return -_stored_dtype(tensors[name], dtype).itemsize, tensors[name].ndim > 0, name

    return sorted(tensors, key=rank)


def _stored_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype in the file: scalars stay fp32; without a `dtype`, each keeps its own."""
    if dtype is None:
        return tensor.dtype
    return dtype if tensor.ndim else torch.float32


def _converted(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name in _write_order(tensors, dtype):
        tensor = tensors[name].detach().to(_stored_dtype(tensors[name], dtype)).cpu().contiguous()
        if not torch.isfinite(tensor).all():
            raise RunFailed(
                f"{name} has values that are not finite in {str(dtype).removeprefix('torch.')}, "
                "so nothing was saved. If the training diverged, lower the learning rate; "
                "otherwise save in fp32 (saving.dtype)."
            )
        yield name, tensor


def _verify(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    if not _equal(path, tensors, dtype):
        raise RunFailed(f"{path.parent} returned other values than were written. Check the disk.")


def _equal(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> bool:
    with safe_open(str(path), framework="pt") as file:
        return set(file.keys()) == set(tensors) and all(
            torch.equal(file.get_tensor(name), tensor)
            for name, tensor in _converted(tensors, dtype)
        )


def _check_free_space(folder: Path, size: int, free: int) -> None:
    if free < size:
        raise OutOfSpace(
            f"{folder} has too little space for the checkpoint: it needs {size / 1e9:.2f} GB, "
            f"{max(free, 0) / 1e9:.2f} GB are free. Free some space and run again: training "
            "resumes from its last saved training state."
        )
