"""Digests of the files that a cell depends on, and the check of the rows' base models."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from ..trainers.adapter import read_metadata
from ..trainers.digests import content_digest
from ..trainers.errors import LikenessError
from .cells import Node
from .controlnet_check import BASE_LOADERS
from .host import find_files, has_model, interrupted, model_path
from .load_adapter import find_adapter, find_by_kind
from .matrix import CellMatrix
from .rows import BASE

_EMBEDDING = re.compile(r"embedding:([^\s<\[()]+)")
_EXTENSIONS = ("", ".safetensors", ".pt", ".bin")  # which core's tokenizer tries


def make_file_digester(digest_cache: Path) -> Callable[[str], list[str]]:
    """Returns a cached function from a text to the digests of the models and input files it names.

    `digest_cache` is the folder where digests are cached.
    """

    @cache
    def digest_files(text: str) -> list[str]:
        paths = (*find_files(text), *find_by_kind(text), *find_embeddings(text))
        return [_digest(path, digest_cache) for path in paths]

    return digest_files


def _digest(path: Path, digest_cache: Path) -> str:
    return content_digest(path, digest_cache, lambda _: interrupted())


def find_embeddings(text: str) -> list[Path]:
    """The files of each ``embedding:name`` in a prompt; missing ones are skipped."""
    found = []
    for name in _EMBEDDING.findall(text):
        # The name may be followed by a weight or a comma.
        tried = dict.fromkeys((name, name.strip(","), name.rpartition(":")[0]))
        listed = (os.path.normpath(f"{one}{ending}") for one in tried for ending in _EXTENSIONS)
        found += [next((one for one in listed if has_model("embeddings", one)), None)]
    return [model_path("embeddings", one) for one in found if one is not None]


def base_mismatch_warning(matrix: CellMatrix, nodes: Mapping[str, Node], digest_cache: Path) -> str:
    """A warning about rows whose adapters were trained on another base than `nodes` load, or "".

    Adapters that do not record their base are skipped, and so is the check if a base's name is
    connected.
    """
    loaders = [node for node in nodes.values() if node["class_type"] in BASE_LOADERS]
    kinds = [BASE_LOADERS[node["class_type"]] for node in loaders]
    try:
        bases = {
            _digest(model_path(folder, node["inputs"].get(widget)), digest_cache)
            for node, (widget, folder) in zip(loaders, kinds, strict=True)
        }
    except LikenessError:
        return ""
    rows = zip(matrix.plan.variants, matrix.adapters, strict=True)
    other = [
        row.name for row, adapter in rows if _trained_base_digest(adapter) not in (None, *bases)
    ]
    if not other or not bases:
        return ""
    return f"Trained on another base model than the one loaded: {', '.join(other)}."


def _trained_base_digest(adapter: str) -> str | None:
    """The digest of the base that an adapter's file records; None without one."""
    try:
        path = None if adapter == BASE else find_adapter(adapter)
        return None if path is None or path.is_dir() else read_metadata(path).base
    except LikenessError:
        return None
