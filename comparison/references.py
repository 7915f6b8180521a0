"""The photographs that scores compare images with."""

from __future__ import annotations

from pathlib import Path

from ..trainers.recipe import Subject
from ..trainers.subject import NoUsablePhotos, read_subject
from .plan_file import PlanFile

_MIN_SIDE = 64  # pixels; smaller photographs are never used


def photographs(folder: Path | None, subject: Subject | None = None) -> list[Path]:
    """The photographs in a folder that are large enough to be trained as `subject` says; without
    it, or if none is, all usable ones.

    [] without a folder. Raises SubjectError if none is usable.
    """
    if folder is None:
        return []
    spec = Subject(resolution=_MIN_SIDE)
    if subject is not None:
        spec = Subject(resolution=subject.resolution, enlarge=subject.enlarge)
    try:
        return [photo.path for photo in read_subject(folder, spec).photos]
    except NoUsablePhotos:
        if subject is None:
            raise
        return photographs(folder)


def trained_photographs(plan: PlanFile, folder: Path | None) -> list[Path]:
    """The photographs in a folder that a plan's rows train on, or all usable ones of plans without.

    Raises SubjectError and RecipeError.
    """
    recipes = [recipe for row in plan.rows if (recipe := plan.recipe_of(row))]
    subjects = sorted((one.subject for one in recipes), key=lambda spec: spec.resolution)
    return photographs(folder, next(iter(subjects), None))
