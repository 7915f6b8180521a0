"""The photographs that scores compare images with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..trainers.recipe import Subject
from ..trainers.subject import NoUsablePhotos, read_subject
from .plan_file import PlanFile

_MIN_SIDE = 64  # pixels; smaller photographs are never used


def photographs(folder: Path | None, *subjects: Subject) -> list[Path]:
    """The photographs in a folder that are large enough to be trained as a subject says; without
    subjects, or if none is, all usable ones.

    [] without a folder. Raises SubjectError if none is usable.
    """
    if folder is None:
        return []
    found: dict[Path, None] = {}
    for spec in dict.fromkeys(map(_only_sizes, subjects)):
        with suppress(NoUsablePhotos):
            found |= dict.fromkeys(_read(folder, spec))
    return list(found) or _read(folder, Subject(resolution=_MIN_SIDE))


def _only_sizes(subject: Subject) -> Subject:
    """A subject with what says how large photographs must be."""
    return Subject(resolution=subject.resolution, buckets=subject.buckets, enlarge=subject.enlarge)


def _read(folder: Path, spec: Subject) -> list[Path]:
    return [photo.path for photo in read_subject(folder, spec).photos]


def trained_photographs(plan: PlanFile, folder: Path | None) -> list[Path]:
    """The photographs in a folder that a plan's rows train on, or all usable ones of plans without.

    Raises SubjectError and RecipeError.
    """
    recipes = [recipe for row in plan.rows if (recipe := plan.recipe_of(row))]
    return photographs(folder, *(recipe.subject for recipe in recipes))
