"""The files that decide a cell beside its nodes' values: their digests, and the rows' bases."""

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
from .control import BASES
from .host import files_named, has_model, interrupted, model_path
from .load_adapter import files_of_kind, find_adapter
from .matrix import CellMatrix
from .rows import BASE

_EMBEDDING = re.compile(r"embedding:([^\s<\[()]+)")
_ENDINGS = ("", ".safetensors", ".pt", ".bin")  # which core's tokenizer tries


def file_stamps(known: Path) -> Callable[[str], list[str]]:
    """Digests of the content of the models and input files that a text names.

    `known` is the folder where digests are remembered.
    """

    @cache
    def stamp(text: str) -> list[str]:
        paths = (*files_named(text), *files_of_kind(text), *embeddings_named(text))
        return [_digest(path, known) for path in paths]

    return stamp


def _digest(path: Path, known: Path) -> str:
    return content_digest(path, known, lambda _: interrupted())


def embeddings_named(text: str) -> list[Path]:
    """The files of each ``embedding:name`` in a prompt, [] where there is none of that name."""
    found = []
    for name in _EMBEDDING.findall(text):
        # A weight may stand behind the name, and a comma.
        tried = dict.fromkeys((name, name.strip(","), name.rpartition(":")[0]))
        listed = (os.path.normpath(f"{one}{ending}") for one in tried for ending in _ENDINGS)
        found += [next((one for one in listed if has_model("embeddings", one)), None)]
    return [model_path("embeddings", one) for one in found if one is not None]


def base_remark(matrix: CellMatrix, nodes: Mapping[str, Node], known: Path) -> str:
    """A sentence on rows whose adapters were trained on another base than the `nodes` load, or "".

    Nothing is said of an adapter whose file does not name its base, and where a base's name comes
    by a wire.
    """
    loaders = [node for node in nodes.values() if node["class_type"] in BASES]
    kinds = [BASES[node["class_type"]] for node in loaders]
    try:
        bases = {
            _digest(model_path(folder, node["inputs"].get(widget)), known)
            for node, (widget, folder) in zip(loaders, kinds, strict=True)
        }
    except LikenessError:
        return ""
    rows = zip(matrix.plan.variants, matrix.adapters, strict=True)
    other = [row.name for row, adapter in rows if _base_of(adapter) not in (None, *bases)]
    if not other or not bases:
        return ""
    return f"Trained on another base model than the one loaded: {', '.join(other)}."


def _base_of(adapter: str) -> str | None:
    """The digest of the base that an adapter's file names."""
    try:
        path = None if adapter == BASE else find_adapter(adapter)
        return None if path is None or path.is_dir() else read_metadata(path).base
    except LikenessError:
        return None
