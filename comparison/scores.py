"""Scores of a comparison: per image, and per row with a 95 % interval.

After DreamBooth (arXiv:2208.12242, section 4): subject and prompt fidelity as mean similarity of
embeddings, diversity as dissimilarity of images of one prompt, and drift of the class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .encoders import (
    Encoder,
    OnProgress,
    PoseEncoder,
    PromptEncoder,
    Values,
    Vectors,
    encode_files,
)
from .estimates import Estimate, estimate, mean_or_nan
from .matrix import Cell, Plan

Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]
OnEncoder = Callable[[str], None]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Measure:
    """What is measured, and by which encoder; `better` is the good direction, if there is one."""

    key: str
    encoder: str
    label: str
    meaning: str
    better: Better | None


_MEASURES: tuple[tuple[str, str, Better | None, str], ...] = (
    ("subject", "subject match", "higher",
     "mean similarity to the training photographs"),
    ("prompt", "prompt match", "higher",
     "how well the image matches the prompt without the token"),
    ("diversity", "diversity", "higher",
     "dissimilarity of images of the same prompt"),
    ("nearest", "nearest photograph", None,
     "similarity to the nearest training photograph; far above that of the photographs among "
     "themselves, it was memorised"),
    ("drift", "class drift", "lower",
     "dissimilarity to the base's image of the same prompt without the token, from the same "
     "noise"),
    ("leak", "class leak", "lower",
     "how much more the images without the token look like the subject than the base's do"),
    ("pose", "pose error", "lower",
     "mean distance of joints from the requested pose, in image heights"),
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """All measures of a comparison.

    For each measure, `cells` has a value or None for every cell in the plan's order, `rows` an
    estimate or None for every row, and `photographs` the estimate for the training photographs
    among themselves. `notes` say which measures are left out and why.
    """

    measures: tuple[Measure, ...]
    cells: dict[str, tuple[float | None, ...]]
    rows: dict[str, tuple[Estimate | None, ...]]
    photographs: dict[str, Estimate | None]
    notes: tuple[str, ...]

    def to_json(self, plan: Plan) -> str:
        """JSON with the names of rows and columns."""
        data = asdict(self) | {"version": 1, "row_names": plan.rows()}
        data["column_names"] = plan.columns()
        return json.dumps(data, indent=1, allow_nan=False)


def score(
    plan: Plan,
    images: Sequence[Path],
    photographs: Sequence[Path],
    encoders: Sequence[Encoder],
    *,
    notes: Sequence[str] = (),
    cache: Path | None = None,
    on_encoder: OnEncoder = lambda name: None,
    on_progress: OnProgress = lambda done, total: None,
) -> Scores:
    """Scores of a plan's images by each encoder.

    Args:
        images: a file for each cell; a missing one has no scores.
        photographs: of the subject, uncropped; if empty, measures that need them are left out.
        notes: lines on missing encoders.
        cache: the folder that caches vectors.
        on_encoder: called with each encoder's name before it starts.
        on_progress: as in `encode_files`, for its photographs and then for its images.

    Raises ComparisonError for a file that is not an image.
    """
    lines = [*notes, *_left_out(plan, photographs, encoders)]
    found: list[_MeasuredCells] = []
    for encoder in encoders:
        on_encoder(encoder.name)
        known = encode_files(encoder, photographs, cache, on_progress) if photographs else None
        if known is not None and np.isnan(known).any(1).all():
            lines.append(f"{encoder.name} finds nothing to compare in the training photographs.")
        else:
            found += _measure_cells(_encode_cells(encoder, plan, images, cache, on_progress), known)
    return Scores(
        measures=tuple(one.measure for one in found),
        cells={one.measure.key: tuple(map(_none_if_nan, one.values)) for one in found},
        rows={one.measure.key: _rows(plan, one) for one in found},
        photographs={one.measure.key: one.photographs for one in found},
        notes=tuple(lines),
    )


def _left_out(
    plan: Plan, photographs: Sequence[Path], encoders: Sequence[Encoder]
) -> Iterator[str]:
    """A line for each measure that this comparison cannot have, with the reason."""
    of_class = [prompt.of_class for prompt in plan.prompts.prompts]
    if encoders and not any(isinstance(encoder, PromptEncoder) for encoder in encoders):
        yield "Prompt match is left out: it needs CLIP's text encoder as well as its image encoder."
    if not photographs:
        yield "Subject match is left out: it needs photographs of the subject."
    if plan.draws == 1:
        yield "Diversity is left out: it needs at least two images of each prompt."
    if not any(of_class):
        yield "Class drift is left out: it needs prompts without the token."
    elif not any(variant.adapter is None for variant in plan.variants):
        yield "Class drift is left out: it needs a row of the base."


@dataclass(frozen=True)
class _EncodedCells:
    """The vectors (n, d) of a plan's cells; `drawn` (n,) marks those that have an image."""

    plan: Plan
    vectors: Vectors
    drawn: Mask
    encoder: Encoder

    def cells(self) -> tuple[Cell, ...]:
        return self.plan.cells()

    def of_class(self) -> Mask:
        """Mask of the cells whose prompt asks for the class, (n,)."""
        return np.array([self.plan.prompt_of(cell).of_class for cell in self.cells()])

    def base(self) -> Indices:
        """Index of the base's cell with the same column and pose, for each cell; -1 if none."""
        where = {
            (cell.column, cell.pose): index
            for index, cell in enumerate(self.cells())
            if self.plan.variant_of(cell).adapter is None
        }
        return np.array([where.get((cell.column, cell.pose), -1) for cell in self.cells()])


def _encode_cells(
    encoder: Encoder,
    plan: Plan,
    images: Sequence[Path],
    cache: Path | None,
    on_progress: OnProgress,
) -> _EncodedCells:
    files = [path for path in images if path.is_file()]
    drawn = np.array([path.is_file() for path in images])
    found = np.zeros((0, 1), np.float32)
    if files:
        found = encode_files(encoder, files, cache, on_progress)
    vectors = np.full((len(images), found.shape[1]), np.nan, np.float32)
    vectors[drawn] = found
    return _EncodedCells(plan, vectors, drawn, encoder)


@dataclass(frozen=True)
class _MeasuredCells:
    """One measure: its values (n,), NaN if missing, and the mask of the cells it applies to."""

    measure: Measure
    values: Values
    asked: Mask
    photographs: Estimate | None


def _measure_cells(encoded: _EncodedCells, photographs: Vectors | None) -> Iterator[_MeasuredCells]:
    kinds = {kind: (values, asked) for kind, values, asked in _values(encoded, photographs)}
    references = {} if photographs is None else _references(encoded.encoder, photographs)
    for kind, label, better, meaning in _MEASURES:
        if kind not in kinds:
            continue
        values, asked = kinds[kind]
        values = np.where(asked & encoded.drawn, values, np.nan)
        if not np.isnan(values).all():
            measure = Measure(
                f"{kind}.{encoded.encoder.key}", encoded.encoder.name, label, meaning, better
            )
            yield _MeasuredCells(measure, values, asked, references.get(kind))


def _values(
    encoded: _EncodedCells, photographs: Vectors | None
) -> Iterator[tuple[str, Values, Mask]]:
    """(kind, values (n,), mask of the cells it applies to (n,)) of all measures."""
    encoder, vectors = encoded.encoder, encoded.vectors
    subject = ~encoded.of_class()
    base = encoded.base()
    class_cells = encoded.of_class() & (base >= 0) & (base != np.arange(len(base)))
    if photographs is not None:
        alike = encoder.likeness(vectors, photographs)  # (n, photographs)
        alike = alike[:, ~np.isnan(photographs).any(1)]
        yield "subject", alike.mean(1), subject
        yield "nearest", alike.max(1), subject
        yield "leak", alike.mean(1) - alike.mean(1)[base], class_cells
    if not encoder.identity_only:
        yield "drift", _drift(encoded, base, class_cells), class_cells
        yield "diversity", _diversity(encoded), subject & (encoded.plan.draws > 1)
    if isinstance(encoder, PromptEncoder):
        prompts = (encoded.plan.prompt_of(cell) for cell in encoded.cells())
        texts = [prompt.plain or prompt.text for prompt in prompts]
        yield "prompt", encoder.prompt_match(vectors, texts), subject
    if isinstance(encoder, PoseEncoder):
        posed = np.array([cell.with_pose for cell in encoded.cells()])
        yield "pose", _pose_error(encoded, encoder, posed), posed


def _drift(encoded: _EncodedCells, base: Indices, class_cells: Mask) -> Values:
    values = np.full(len(base), np.nan)
    for index in np.flatnonzero(class_cells):
        pair = encoded.vectors[[index]], encoded.vectors[[base[index]]]
        values[index] = 1 - encoded.encoder.likeness(*pair)[0, 0]
    return values


def _diversity(encoded: _EncodedCells) -> Values:
    """Mean dissimilarity of each image to the others of its row and prompt."""
    values = np.full(len(encoded.vectors), np.nan)
    draws = encoded.plan.draws
    for start in range(0, len(values), draws) if draws > 1 else ():
        alike = encoded.encoder.likeness(*[encoded.vectors[start : start + draws]] * 2)
        np.fill_diagonal(alike, np.nan)
        values[start : start + draws] = [1 - mean_or_nan(line) for line in alike]
    return values


def _pose_error(encoded: _EncodedCells, encoder: PoseEncoder, posed: Mask) -> Values:
    values = np.full(len(posed), np.nan)
    poses = [encoded.plan.fitted_pose_of(cell) for cell in encoded.cells()]
    if posed.any():
        asked = [pose for pose in poses if pose is not None]
        values[posed] = encoder.pose_error(encoded.vectors[posed], asked)
    return values


def _references(encoder: Encoder, photographs: Vectors) -> dict[str, Estimate | None]:
    """Similarity of the photographs among themselves, the reference to judge scores against."""
    known = photographs[~np.isnan(photographs).any(1)]
    if len(known) < 2:
        return {}
    alike = encoder.likeness(known, known)
    np.fill_diagonal(alike, np.nan)
    pairs = {"subject": np.nanmean(alike, 1), "nearest": np.nanmax(alike, 1)}
    return {
        kind: Estimate(float(values.mean()), None, None, len(known), len(photographs))
        for kind, values in pairs.items()
    }


def _rows(plan: Plan, found: _MeasuredCells) -> tuple[Estimate | None, ...]:
    """The mean of each row with its interval, over prompts."""
    prompts = np.array([cell.column // plan.draws for cell in plan.cells()])
    rows = np.array([cell.row for cell in plan.cells()])
    here = [(rows == row) & found.asked for row in range(len(plan.rows()))]
    independent = not found.measure.key.startswith("diversity")
    return tuple(
        estimate(found.values[cells], prompts[cells], independent=independent) for cells in here
    )


def _none_if_nan(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
