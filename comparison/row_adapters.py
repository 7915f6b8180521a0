"""A row's adapter, its metadata, and the run that produced it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..trainers.adapter import AdapterInfo, read_metadata
from ..trainers.adapter_files import intermediate_adapters
from ..trainers.digests import cached_digest
from ..trainers.errors import LikenessError
from ..trainers.recipe import Recipe
from ..trainers.resize import RESIZED_FROM_KEY
from ..trainers.run_folder import Result, RunFolder
from .matrix import Plan


@dataclass(frozen=True)
class RowAdapter:
    """A row's adapter, or None for the base, and what is known about its training."""

    name: str
    adapter: Path | None = None
    info: AdapterInfo | None = None
    result: Result | None = None

    @property
    def recipe(self) -> Recipe | None:
        """The run's recipe, or the one in the file's metadata."""
        if self.result is not None:
            return self.result.recipe
        return self.info.recipe if self.info else None


def read_row_adapter(name: str, adapter: Path | None, runs: Path) -> RowAdapter:
    """A row with its adapter's metadata and the run in `runs` that produced it.

    For a diffusers folder neither is known. Raises AdapterError for a damaged file.
    """
    if adapter is None or adapter.is_dir():
        return RowAdapter(name, adapter)
    info = read_metadata(adapter)
    result = RunFolder(runs / info.recipe.run_name()).result() if info.recipe else None
    if result is not None and (
        RESIZED_FROM_KEY in info.metadata or info.steps not in (None, result.steps)
    ):
        result = None  # that of another file
    return RowAdapter(name, adapter, info, result)


def find_row_adapters(plan: Plan, runs: Path, cache: Path) -> list[RowAdapter]:
    """The adapters of a plan's variants, as far as runs in `runs` produced them.

    Adapters that were drawn have their digest in `cache`; others, which may be many gigabytes,
    are not hashed.
    """
    wanted = {variant.adapter for variant in plan.variants} - {None}
    made: dict[str, tuple[Result | None, Path]] = {}
    for folder in sorted(runs.glob("*")) if wanted else ():
        result = RunFolder(folder).result()
        if result is not None:
            if digest := cached_digest(result.adapter, cache):
                made[digest] = result, result.adapter
            for file in intermediate_adapters(result.adapter.parent, folder.name):
                if digest := cached_digest(file, cache):
                    made.setdefault(digest, (None, file))
    return [_row_adapter(variant.name, *made.get(variant.adapter or "", (None, None)))
            for variant in plan.variants]  # fmt: skip


def _row_adapter(name: str, result: Result | None, adapter: Path | None) -> RowAdapter:
    if adapter is None:
        return RowAdapter(name)
    try:
        return RowAdapter(name, adapter, read_metadata(adapter), result)
    except LikenessError:
        return RowAdapter(name, adapter, None, result)
