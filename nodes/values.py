"""The values of our own socket types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..trainers.recipe import Prior, Subject


@dataclass(frozen=True)
class SubjectSource:
    """LIKENESS_SUBJECT: the photographs' folder, and how they are used in training."""

    spec: Subject
    folder: Path


@dataclass(frozen=True)
class PriorSource:
    """LIKENESS_PRIOR: the class images.

    `folder` is None where the base model draws them or, with the teacher, there are none.
    """

    spec: Prior
    folder: Path | None = None


@dataclass(frozen=True)
class TrainOptions:
    """LIKENESS_OPTIONS: recipe fields by part, the digest of a run to continue, and the LoRA file
    to start from.
    """

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    validate_every: int = 0
    continues: str | None = None
    start: Path | None = None
