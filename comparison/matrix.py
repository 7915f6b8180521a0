"""Which pictures a comparison draws: variants down, prompts across, and what decides each one.

A plan is pure data: it names models by digest, so that it can be shared, and two cells of equal
content have equal digests, so that a finished picture is found again and never drawn twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from ..trainers.adapter import Prediction
from ..trainers.recipe import Digest, Name, Part, Size, format_validation_error
from .errors import ComparisonError
from .poses import Pose, choose_pose, fit_pose
from .prompts import Prompt, PromptSet
from .user_files import read_json

WithPose = Literal["without", "with", "both"]
Strength = Annotated[float, Field(ge=-20, le=20)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]  # all that core's samplers take
MAX_CELLS = 20_000


class Variant(Part):
    """One way of teaching: a name for its rows, and what is put on the base.

    `adapter` is the digest of a LoRA or a full fine-tune, None the untouched base. `with_pose`
    None: as the plan says. `clip_skip` is that of the adapter's training, `prediction` what that
    took the base to predict, where the base's file says otherwise.
    """

    omit_if_default: ClassVar[frozenset[str]] = frozenset({"clip_skip", "prediction"})

    name: Name
    adapter: Digest | None = None
    strength_unet: Strength = 1.0
    strength_text: Strength = 1.0
    with_pose: WithPose | None = None
    clip_skip: int = Field(1, ge=1, le=12)
    prediction: Prediction | None = None


class Picture(Part):
    """How each picture is drawn; the study's settings."""

    width: Size = 768
    height: Size = 1024
    steps: int = Field(35, ge=1, le=1000)
    guidance: float = Field(7.5, ge=0, le=100)


class Control(Part):
    """The OpenPose ControlNet of the cells with a pose. `model` is its digest."""

    model: Digest | None = None
    strength: float = Field(1.0, ge=0, le=10)


class Cell(Part):
    """One picture of the matrix, at `row` and `column`, counted from 0.

    `seed` gives the first noise: the same all down a column. `pose` is None without a pose.
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
        """Whether the picture is drawn with ControlNet."""
        return self.pose is not None


class Plan(Part):
    """A comparison. The axes and the cells follow from it.

    `draws` pictures of each prompt, each a column with a seed of its own: `seed`, `seed` + 1, …
    Prompts are filled in; a pose is chosen for each column.
    """

    version: Literal[1] = 1
    base: Digest | None = None
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=64)
    prompts: PromptSet
    poses: tuple[Pose, ...] = Field((), max_length=1000)
    with_pose: WithPose = "without"
    seed: Seed = 0
    draws: int = Field(1, ge=1, le=100)
    picture: Picture = Picture()
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
            raise ValueError("a variant is drawn with poses, and the plan has none: add poses")
        if len(self.rows()) * len(self.columns()) > MAX_CELLS:
            raise ValueError(f"more than {MAX_CELLS:,} pictures: take fewer prompts or variants")
        return self

    # The axes. A variant's rows follow one another, so that one model is in memory at a time.

    def rows(self) -> tuple[str, ...]:
        """Names of the rows: each variant's, with the suffix ``_cnet`` for the one with poses."""
        return tuple(name for name, _, _ in self._rows())

    def columns(self) -> tuple[str, ...]:
        """Names of the columns: the prompts' keys, and ``key@2``, ``key@3`` … for more draws."""
        return tuple(_column_name(prompt, draw) for prompt, draw in self._columns())

    def cells(self) -> tuple[Cell, ...]:
        """All pictures, row after row."""
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

    # What a cell's picture is made of, and where it is kept.

    def variant_of(self, cell: Cell) -> Variant:
        """The variant of a cell's row."""
        return next(variant for variant in self.variants if variant.name == cell.variant)

    def prompt_of(self, cell: Cell) -> Prompt:
        """The prompt of a cell's column."""
        return self.prompts.prompts[cell.column // self.draws]

    def pose_of(self, cell: Cell) -> Pose | None:
        """The pose of a cell, as given; None without one."""
        return next((pose for pose in self.poses if pose.name == cell.pose), None)

    def fitted_pose_of(self, cell: Cell) -> Pose | None:
        """The pose of a cell as it is drawn, inside the picture; None without one."""
        pose = self.pose_of(cell)
        return pose and fit_pose(pose, self.picture.width, self.picture.height)

    def digest_of(self, cell: Cell) -> str:
        """SHA-256 of all that decides a cell's picture, 64 hex digits.

        Names and places in the matrix are no part of it: a picture is found again after rows are
        reordered or renamed. Whole only when base, adapters and ControlNet are named by digest.
        """
        variant, pose = self.variant_of(cell), self.pose_of(cell)
        taught = variant if variant.adapter else None
        content = {
            "version": self.version,
            "base": self.base,
            "adapter": taught and [taught.adapter, taught.strength_unet, taught.strength_text],
            "prompt": [cell.prompt, cell.negative],
            "seed": cell.seed,
            "picture": self.picture.model_dump(),
            "pose": pose and [pose.aspect, pose.people, self.control.model_dump()],
            **({"clip_skip": taught.clip_skip} if taught and taught.clip_skip > 1 else {}),
            **({"prediction": taught.prediction} if taught and taught.prediction else {}),
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def file_path(self, cell: Cell, suffix: str = "png") -> str:
        """Where a picture is in the study's layout: ``<row>/768x1024/<key>.png``."""
        row = self.rows()[cell.row]
        return f"{row}/{self.picture.width}x{self.picture.height}/{cell.key}.{suffix}"

    def to_json(self, *, given: bool = False) -> str:
        """JSON of every field, or of those that were given a value."""
        data = self.model_dump(mode="json", exclude_unset=given)
        return json.dumps({"version": self.version} | data, indent=2, ensure_ascii=False)


def _column_name(prompt: Prompt, draw: int) -> str:
    return f"{prompt.key}@{draw + 1}" if draw else prompt.key


def _check_unique(what: str, names: Sequence[str]) -> None:
    """Raises ValueError if two names name the same file on a system that ignores case."""
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
    picture: Picture | None = None,
    control: Control | None = None,
) -> Plan:
    """A plan of its parts, checked. Raises ComparisonError that names each wrong part."""
    return plan_from_data(
        {
            "base": base,
            "variants": tuple(variants),
            "prompts": prompts,
            "poses": tuple(poses),
            "seed": seed,
            "with_pose": with_pose,
            "draws": draws,
            "picture": picture or Picture(),
            "control": control or Control(),
        }
    )


def plan_from_data(data: Any) -> Plan:
    """Plan of parsed JSON. Raises ComparisonError that names each wrong field."""
    try:
        return Plan.model_validate(data)
    except ValidationError as error:
        raise ComparisonError(format_validation_error(error, "plan")) from None


def read_plan(path: Path) -> Plan:
    """Plan of a JSON file. Raises ComparisonError that names it."""
    data = read_json(path)
    try:
        return plan_from_data(data)
    except ComparisonError as error:
        raise ComparisonError(f"{path}: {error}") from None
