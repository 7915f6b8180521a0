"""Safetensors files: headers read in bounded memory and written reproducibly.

Layout (github.com/huggingface/safetensors): 8 bytes with the header's length, little endian; the
header, a JSON object; then the tensors' bytes, to the end of the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

MEGABYTE = 1024**2
HEADER_LIMIT = 16 * MEGABYTE  # an SD 1.5 checkpoint has 0.2 MB; LoRA files with tag lists a few
METADATA_LIMIT = 8 * MEGABYTE

Shapes = Mapping[str, tuple[int, ...]]  # by tensor name


@dataclass(frozen=True)
class Header:
    """A file's header: shapes and dtypes (``F16``, …) by name, and its metadata."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Reads the header of a complete safetensors file, but not the tensors.

    Raises ValueError that says what is wrong with the file, in words that follow its name, and
    OSError if it cannot be opened.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = _header_length(file, size)
        try:
            parsed = json.loads(file.read(length).decode("utf-8"))
        except (ValueError, RecursionError):
            raise ValueError("is not a safetensors file: its header is not JSON") from None
    if not isinstance(parsed, dict):
        raise ValueError("is not a safetensors file: its header is not a JSON object")
    metadata = _metadata(parsed.pop("__metadata__", None))
    entries = {name: _entry(name, value) for name, value in parsed.items()}
    have, want = size - 8 - length, max((end for *_, end in entries.values()), default=0)
    if have != want:
        what = "is truncated" if have < want else "has bytes after its last tensor"
        raise ValueError(f"{what}: {have} bytes of tensors, but its header says {want}")
    return Header(
        shapes={name: shape for name, (_, shape, _) in entries.items()},
        dtypes={name: dtype for name, (dtype, _, _) in entries.items()},
        metadata=metadata,
    )


def _header_length(file: BinaryIO, size: int) -> int:
    if size < 10:
        raise ValueError(f"is not a safetensors file: it has {size} bytes")
    length = int.from_bytes(file.read(8), "little")
    if length > HEADER_LIMIT and length <= size - 8:
        raise ValueError(f"has a header of {length} bytes; the limit is {HEADER_LIMIT}")
    if length > size - 8:
        raise ValueError("is not a safetensors file, or is truncated within its header")
    return length


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("has metadata that is not a map of strings")
    if sum(len(key) + len(text) for key, text in value.items()) > METADATA_LIMIT:
        raise ValueError(f"has more than {METADATA_LIMIT} characters of metadata")
    return value


def _entry(name: str, value: Any) -> tuple[str, tuple[int, ...], int]:
    """The dtype, shape and end offset of one tensor."""
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"has a damaged entry for {name[:120]!r}") from None
    counts = (*shape, begin, end)
    if not (isinstance(dtype, str) and len(counts) <= 10 and all(map(_is_count, counts))):
        raise ValueError(f"has a damaged entry for {name[:120]!r}")
    # The widest element has 16 bytes; sub-byte elements take less than one each.
    if not (begin <= end and end - begin <= 16 * math.prod(shape)):
        raise ValueError(f"has an entry of impossible size for {name[:120]!r}")
    return dtype, shape, end


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def header_bytes(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file before its tensors; equal arguments give equal bytes.

    `entries` maps tensor names, in file order, to dtype, shape and data_offsets. The metadata is
    sorted, and the header is padded to a multiple of 8 bytes so that the tensors are aligned.
    """
    table = {"__metadata__": dict(sorted(metadata.items())), **entries}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def header_with_metadata(file: BinaryIO, metadata: Mapping[str, str]) -> bytes:
    """The bytes before the tensors of an open file, with its metadata replaced.

    Leaves `file` at the first byte of its tensors. `read_header` must have accepted the file.
    """
    entries = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    entries.pop("__metadata__", None)
    return header_bytes(entries, metadata)


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A file's bytes; equal arguments give equal bytes.

    safetensors itself writes metadata in random order, so it is inserted here, sorted. Adds the
    SHA-256 of the tensors' bytes as ModelSpec's hash and as kohya's, which A1111 shows.
    """
    from safetensors.torch import save

    plain = save(dict(tensors))
    start = 8 + int.from_bytes(plain[:8], "little")
    digest = hashlib.sha256(plain[start:]).hexdigest()
    hashes = {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    return header_bytes(json.loads(plain[8:start]), {**metadata, **hashes}) + plain[start:]
