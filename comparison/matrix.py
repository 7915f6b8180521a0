"""The plan of a comparison: variants as rows, prompts as columns, and the inputs of each cell.

A plan is pure data. It names models by digest, so it can be shared. Cells with the same inputs
have the same digest, so a finished image is found again and never drawn twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..trainers.adapter import Prediction
from ..trainers.recipe import Digest, Name, Part, Size, format_validation_error
from .errors import ComparisonError
from .poses import Pose, choose_pose, fit_pose
from .prompts import Prompt, PromptSet
from .user_files import read_json

WithPose = Literal["without", "with", "both"]
Strength = Annotated[float, Field(ge=-20, le=20)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]  # the range of core's samplers
MAX_CELLS = 20_000
MAX_VARIANTS = 64


class Variant(Part):
    """A model to compare: the name of its rows, and the adapter applied to the base.

    `adapter` is the digest of a LoRA or a full fine-tune; None is the unmodified base. If
    `with_pose` is None, the plan's applies. `clip_skip` is the one the adapter was trained with,
    and `prediction` its prediction type where that differs from the base file's.
    """

    name: Name
    adapter: Digest | None = None
    strength_unet: Strength = 1.0
    strength_text: Strength = 1.0
    with_pose: WithPose | None = None
    clip_skip: int = Field(1, ge=1, le=12)
    prediction: Prediction | None = None


class ImageSettings(Part):
    """Sampling settings of every image; the defaults are the study's."""

    width: Size = 768
    height: Size = 1024
    steps: int = Field(35, ge=1, le=1000)
    guidance: float = Field(7.5, ge=0, le=100)


class Control(Part):
    """The OpenPose ControlNet for cells with a pose. `model` is its digest."""

    model: Digest | None = None
    strength: float = Field(1.0, ge=0, le=10)


class Cell(Part):
    """One image of the matrix, at `row` and `column`, counted from 0.

    `seed` determines the initial noise and is the same for a whole column. `pose` is the name of
    the pose, or None.
    """

    row: int
    column: int
    variant: Name
    key: str
    prompt: str
    negative: str
    seed: Seed
    pose: Name | None

    @property
    def with_pose(self) -> bool:
        """Whether the image is drawn with the ControlNet."""
        return self.pose is not None


class Plan(Part):
    """A comparison; its axes and cells are derived from it.

    Each prompt is drawn `draws` times, in one column per seed: `seed`, `seed` + 1, … Prompts have
    their placeholders filled in; a pose is chosen for each column.
    """

    version: Literal[1] = 1
    base: Digest | None = None
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=MAX_VARIANTS)
    prompts: PromptSet
    poses: tuple[Pose, ...] = Field((), max_length=1000)
    with_pose: WithPose = "without"
    seed: Seed = 0
    draws: int = Field(1, ge=1, le=100)
    image: ImageSettings = ImageSettings()
    control: Control = Control()

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        _check_unique("rows", self.rows())
        _check_unique("variants", [variant.name for variant in self.variants])
        _check_unique("poses", [pose.name for pose in self.poses])
        for prompt in self.prompts.prompts:
            if "{token}" in prompt.text or "{class}" in prompt.text:
                raise ValueError(f"the prompt {prompt.key!r} has placeholders: fill them in first")
        if not self.poses and any(posed for _, _, posed in self._rows()):
            raise ValueError("a variant has poses, but the plan has none: add poses")
        if len(self.rows()) * len(self.columns()) > MAX_CELLS:
            raise ValueError(f"more than {MAX_CELLS:,} images: use fewer prompts or variants")
        return self

    # The axes. A variant's rows are adjacent, so that only one model is in memory at a time.

    def rows(self) -> tuple[str, ...]:
        """Names of the rows: the variants' names, with the suffix ``_cnet`` for rows with poses."""
        return tuple(name for name, _, _ in self._rows())

    def columns(self) -> tuple[str, ...]:
        """Names of the columns: the prompts' keys; ``key@2``, ``key@3``, … for further draws."""
        return tuple(_column_name(prompt, draw) for prompt, draw in self._columns())

    def cells(self) -> tuple[Cell, ...]:
        """All cells in row-major order."""
        columns = self._columns()
        return tuple(
            Cell(
                row=row,
                column=column,
                variant=variant.name,
                key=_column_name(prompt, draw),
                prompt=prompt.text,
                negative=self.prompts.negative,
                seed=(self.seed + draw) % 2**64,
                pose=choose_pose(self.poses, self.seed + draw, prompt.key).name if posed else None,
            )
            for row, (_, variant, posed) in enumerate(self._rows())
            for column, (prompt, draw) in enumerate(columns)
        )

    def _rows(self) -> list[tuple[str, Variant, bool]]:
        rows = []
        for variant in self.variants:
            posed = variant.with_pose or self.with_pose
            if posed != "with":
                rows.append((variant.name, variant, False))
            if posed != "without":
                rows.append((f"{variant.name}_cnet", variant, True))
        return rows

    def _columns(self) -> list[tuple[Prompt, int]]:
        return [(prompt, draw) for prompt in self.prompts.prompts for draw in range(self.draws)]

    # The inputs of a cell's image, and its file.

    def variant_of(self, cell: Cell) -> Variant:
        """The variant of a cell's row."""
        return next(variant for variant in self.variants if variant.name == cell.variant)

    def prompt_of(self, cell: Cell) -> Prompt:
        """The prompt of a cell's column."""
        return self.prompts.prompts[cell.column // self.draws]

    def pose_of(self, cell: Cell) -> Pose | None:
        """The pose of a cell as given, or None."""
        return next((pose for pose in self.poses if pose.name == cell.pose), None)

    def fitted_pose_of(self, cell: Cell) -> Pose | None:
        """The pose of a cell as drawn, fitted to the image, or None."""
        pose = self.pose_of(cell)
        return pose and fit_pose(pose, self.image.width, self.image.height)

    def digest_of(self, cell: Cell) -> str:
        """SHA-256 of everything that determines a cell's image, 64 hex digits.

        Names and positions in the matrix are excluded: an image is found again after rows are
        reordered or renamed. Complete only if base, adapters and ControlNet have their digests.
        """
        variant, pose = self.variant_of(cell), self.pose_of(cell)
        adapted = variant if variant.adapter else None
        content = {
            "version": self.version,
            "base": self.base,
            "adapter": adapted and [adapted.adapter, adapted.strength_unet, adapted.strength_text],
            "prompt": [cell.prompt, cell.negative],
            "seed": cell.seed,
            "image": self.image.model_dump(),
            "pose": pose and [pose.aspect, pose.people, self.control.model_dump()],
            **({"clip_skip": adapted.clip_skip} if adapted and adapted.clip_skip > 1 else {}),
            **({"prediction": adapted.prediction} if adapted and adapted.prediction else {}),
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def file_path(self, cell: Cell, suffix: str = "png") -> str:
        """Path of an image in the study's layout: ``<row>/768x1024/<key>.png``."""
        row = self.rows()[cell.row]
        return f"{row}/{self.image.width}x{self.image.height}/{cell.key}.{suffix}"

    def to_json(self, *, given: bool = False) -> str:
        """JSON of every field, or, if `given`, only of the fields that were set."""
        data = self.model_dump(mode="json", exclude_unset=given)
        return json.dumps({"version": self.version} | data, indent=2, ensure_ascii=False)


def _column_name(prompt: Prompt, draw: int) -> str:
    return f"{prompt.key}@{draw + 1}" if draw else prompt.key


def _check_unique(what: str, names: Sequence[str]) -> None:
    """Raises ValueError if two names would be the same file on a case-insensitive file system."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise ValueError(f"two {what} are called {name!r}: give them different names")
        seen.add(name.lower())


def plan(
    variants: Sequence[Variant],
    prompts: PromptSet,
    poses: Sequence[Pose] = (),
    *,
    seed: int = 0,
    with_pose: WithPose = "without",
    draws: int = 1,
    base: str | None = None,
    image: ImageSettings | None = None,
    control: Control | None = None,
) -> Plan:
    """Builds and validates a plan. Raises ComparisonError that names each invalid part."""
    return plan_from_data(
        {
            "base": base,
            "variants": tuple(variants),
            "prompts": prompts,
            "poses": tuple(poses),
            "seed": seed,
            "with_pose": with_pose,
            "draws": draws,
            "image": image or ImageSettings(),
            "control": control or Control(),
        }
    )


def plan_from_data(data: Any) -> Plan:
    """The plan in parsed JSON. Raises ComparisonError that names each invalid field."""
    try:
        return Plan.model_validate(data)
    except ValidationError as error:
        raise ComparisonError(format_validation_error(error, "plan", Plan)) from None


def read_plan(path: Path) -> Plan:
    """The plan in a JSON file. Raises ComparisonError that names the file."""
    data = read_json(path)
    try:
        return plan_from_data(data)
    except ComparisonError as error:
        raise ComparisonError(f"{path}: {error}") from None
