"""What a row was taught with: its adapter, what the file says, and the run that made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..trainers.adapter import AdapterInfo, read_metadata
from ..trainers.digests import known_digest
from ..trainers.errors import LikenessError
from ..trainers.recipe import Recipe
from ..trainers.runs import Result, RunFolder
from ..trainers.step_files import intermediate_adapters
from .matrix import Plan


@dataclass(frozen=True)
class Taught:
    """A row's adapter, None for the base, and what is known of its training."""

    name: str
    adapter: Path | None = None
    info: AdapterInfo | None = None
    result: Result | None = None

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the run, or the one inside the file."""
        if self.result is not None:
            return self.result.recipe
        return self.info.recipe if self.info else None


def taught_by(name: str, adapter: Path | None, runs: Path) -> Taught:
    """A row and what is known of it: by its file, and by the run in `runs` that made it.

    Of a diffusers folder nothing is. Raises AdapterError for a damaged file.
    """
    if adapter is None or adapter.is_dir():
        return Taught(name, adapter)
    info = read_metadata(adapter)
    result = RunFolder(runs / info.recipe.run_name()).result() if info.recipe else None
    if result is not None and info.steps not in (None, result.steps):
        result = None  # of the same run, but saved on its way
    return Taught(name, adapter, info, result)


def taught_of(plan: Plan, runs: Path, cache: Path) -> list[Taught]:
    """What is known of a plan's variants by the runs in `runs` that made their adapters.

    Those that were drawn have digests in `cache`; others, which may be many gigabytes, are not
    read for theirs.
    """
    wanted = {variant.adapter for variant in plan.variants} - {None}
    made: dict[str, tuple[Result | None, Path]] = {}
    for folder in sorted(runs.glob("*")) if wanted else ():
        result = RunFolder(folder).result()
        if result is not None:
            if digest := known_digest(result.adapter, cache):
                made[digest] = result, result.adapter
            for file in intermediate_adapters(result.adapter.parent, folder.name):
                if digest := known_digest(file, cache):
                    made.setdefault(digest, (None, file))
    return [_taught(variant.name, *made.get(variant.adapter or "", (None, None)))
            for variant in plan.variants]  # fmt: skip


def _taught(name: str, result: Result | None, adapter: Path | None) -> Taught:
    if adapter is None:
        return Taught(name)
    try:
        return Taught(name, adapter, read_metadata(adapter), result)
    except LikenessError:
        return Taught(name, adapter, None, result)
