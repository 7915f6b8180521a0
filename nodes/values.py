"""What travels on our own wires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..trainers.recipe import Prior, Subject


@dataclass(frozen=True)
class SubjectSource:
    """LIKENESS_SUBJECT: the photographs' folder and how they are shown to the model."""

    spec: Subject
    folder: Path


@dataclass(frozen=True)
class PriorSource:
    """LIKENESS_PRIOR: the class images; `folder` None means that the base model draws them,
    or, with the teacher, that there are none.
    """

    spec: Prior
    folder: Path | None = None


@dataclass(frozen=True)
class TrainOptions:
    """LIKENESS_OPTIONS: fields of a recipe, by part, and the digest of a run to continue."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    validate_every: int = 0
    continues: str | None = None
