"""A comparison as users write it: its rows, how each is trained, and its prompts.

The only paths it may hold name prompt and pose files beside it, which are inlined on reading. Once
its rows are trained or found, it becomes a `matrix.Plan` of digests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator

from ..trainers.adapter import Prediction
from ..trainers.errors import RecipeError
from ..trainers.presets import preset
from ..trainers.recipe import Name, Part, Prompt, Recipe, format_validation_error
from ..trainers.recipe_parts import Token
from .errors import ComparisonError
from .keypoints import read_poses, yoga_poses
from .matrix import (
    MAX_VARIANTS,
    Control,
    ImageSettings,
    Plan,
    Seed,
    Strength,
    Variant,
    WithPose,
    plan,
)
from .poses import Pose
from .prompts import PromptSet, bundled_set, bundled_sets, read_prompt_set
from .user_files import read_json

YOGA = "yoga"  # value of a plan's `poses` for the bundled poses
_FOLDER = Path(__file__).parent / "plans"
_FILES = (".json", ".txt")

Changes = dict[str, Any]  # keyword arguments of `Recipe.changed`


def _check_file_name(name: str) -> str:
    if name in (".", "..") or re.search(r"[/\\:\x00-\x1f]", name):
        raise ValueError("must be a file name without a folder")
    return name


FileName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_file_name)]


class Row(Part):
    """A row: a preset with changes, a whole recipe, or an adapter's file name.

    Without any of them it is the unmodified base. A file name with ``*`` or ``?`` stands for a row
    of each file that matches. Strengths and poses are as in `matrix.Variant`.
    """

    name: Name
    preset: str | None = None
    changes: Changes = Field(default_factory=dict)
    recipe: Recipe | None = None
    adapter: FileName | None = None
    strength_unet: Strength = 1.0
    strength_text: Strength = 1.0
    with_pose: WithPose | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Row:
        ways = {"preset": self.preset, "recipe": self.recipe, "adapter": self.adapter}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: keep one")
        if self.changes and self.preset is None:
            raise ValueError("changes need a preset: give one, or edit the recipe itself")
        return self

    @property
    def has_strength(self) -> bool:
        """Whether it differs from the base: a strength is not 0."""
        return bool(self.strength_unet or self.strength_text)

    @property
    def trained(self) -> bool:
        """Whether the row is to be trained: it has a recipe."""
        return self.preset is not None or self.recipe is not None


class PlanFile(Part):
    """A comparison.

    `prompts` is a set or the name of a bundled one; `class_prompts` adds each prompt without the
    token, to show how the class has changed. `token` and `class_word` are filled into both prompts
    and recipes. `poses` is a list, or ``yoga`` for the four bundled ones. In a plan file, `prompts`
    and `poses` may name a file beside it. `changes` apply to every preset, before the row's own.
    The other fields are as in `matrix.Plan`.
    """

    version: Literal[1] = 1
    name: Name = "comparison"
    rows: tuple[Row, ...] = Field(min_length=1, max_length=MAX_VARIANTS)
    prompts: str | PromptSet = "study"
    class_prompts: bool = False
    token: Token = "sks"
    class_word: Prompt = "man"
    poses: str | tuple[Pose, ...] = YOGA
    with_pose: WithPose = "without"
    control_strength: float = Field(1.0, ge=0, le=10)
    seed: Seed = 0
    draws: int = Field(1, ge=1, le=100)
    image: ImageSettings = ImageSettings()
    changes: Changes = Field(default_factory=dict)

    def recipe_of(self, row: Row) -> Recipe | None:
        """The recipe to train a row with, or None if there is nothing to train.

        Raises RecipeError that names the invalid field, also if the token or class word differs
        from the plan's.
        """
        if row.recipe is None and row.preset is None:
            return None
        words = {"token": self.token, "class_word": self.class_word}
        if row.recipe is not None:
            chosen = row.recipe
            said = [chosen.subject.model_dump(exclude_unset=True)]
        else:
            said = [changes.get("subject", {}) for changes in (self.changes, row.changes)]
            chosen = preset(row.preset or "").changed(**self.changes).changed(**row.changes)
        for field, word in words.items():
            for other in [one[field] for one in said if one.get(field, word) != word]:
                raise RecipeError(
                    f"The recipe of the row {row.name} has the {field} {other!r}, but the plan has "
                    f"{word!r}. Prompts and recipes must agree: set the plan's {field} instead."
                )
        return chosen.changed(subject=words)

    def prompt_set(self) -> PromptSet:
        """The prompts with their placeholders filled in. Raises ComparisonError."""
        chosen = self.prompts
        if isinstance(chosen, str):
            if chosen not in bundled_sets():
                raise ComparisonError(
                    f"There is no prompt set {chosen!r}: give a .txt file with one prompt per "
                    f"line, a .json file, or one of {', '.join(bundled_sets())}."
                )
            chosen = bundled_set(chosen)
        chosen = chosen.with_class() if self.class_prompts else chosen
        return chosen.filled(self.token, self.class_word)

    def pose_set(self) -> tuple[Pose, ...]:
        """The poses to choose from. Raises ComparisonError."""
        if not isinstance(self.poses, str):
            return self.poses
        if self.poses != YOGA:
            raise ComparisonError(
                f"There is no pose set {self.poses!r}: give a .json file of OpenPose keypoints, or "
                f"{YOGA!r} for the bundled poses."
            )
        return yoga_poses()

    def matrix(
        self,
        adapters: Mapping[str, str | None],
        base: str | None = None,
        control: str | None = None,
        clip_skips: Mapping[str, int] | None = None,
        predictions: Mapping[str, Prediction] | None = None,
    ) -> Plan:
        """The plan of digests: those of `adapters` by row (None: the base), `base` and ControlNet.

        `clip_skips` maps rows to the CLIP skip of their training, where known. `predictions` maps
        them to their prediction type, where it differs from the base file's.

        Raises ComparisonError.
        """
        variants = [
            Variant(
                name=row.name,
                adapter=adapters.get(row.name),
                strength_unet=row.strength_unet,
                strength_text=row.strength_text,
                with_pose=row.with_pose,
                clip_skip=(clip_skips or {}).get(row.name, 1) if row.has_strength else 1,
                prediction=(predictions or {}).get(row.name) if row.has_strength else None,
            )
            for row in self.rows
        ]
        return plan(
            variants,
            self.prompt_set(),
            self.pose_set(),
            seed=self.seed,
            with_pose=self.with_pose,
            draws=self.draws,
            base=base,
            image=self.image,
            control=Control(model=control, strength=self.control_strength),
        )

    def to_json(self) -> str:
        """JSON of the fields that were set, without defaults."""
        data = self.model_dump(mode="json", exclude_unset=True)
        return json.dumps({"version": self.version, **data}, indent=2, ensure_ascii=False)


def without_pose(plan: PlanFile) -> PlanFile:
    """The plan without the rows drawn with poses. Raises ComparisonError if no row is left."""
    rows = [
        {**row.model_dump(exclude_unset=True), "with_pose": "without"}
        for row in plan.rows
        if (row.with_pose or plan.with_pose) != "with"
    ]
    if not rows:
        raise ComparisonError("All rows of the plan have poses: none would be left.")
    return _changed(plan, rows=rows, with_pose="without")


def with_adapters(plan: PlanFile, files: Mapping[str, str]) -> PlanFile:
    """The plan plus a row for each adapter file whose row it lacks. Raises ComparisonError."""
    known = {row.name for row in plan.rows}
    more = [{"name": row, "adapter": file} for row, file in files.items() if row not in known]
    return _changed(plan, rows=[*(r.model_dump(exclude_unset=True) for r in plan.rows), *more])


def with_files_of_patterns(
    plan: PlanFile, find_files: Callable[[Row], Mapping[str, str] | None]
) -> PlanFile:
    """The plan with the rows of files in place of those with a pattern.

    `find_files` returns a row's files by row name, or None if it has no pattern. Raises what it
    raises, and ComparisonError if two rows have one name.
    """
    rows = []
    for row in plan.rows:
        data, files = row.model_dump(exclude_unset=True), find_files(row)
        named = (files or {}).items()
        rows += [data] if files is None else [{**data, "name": n, "adapter": f} for n, f in named]
    return _changed(plan, rows=rows)


def with_prompts_and_poses(plan: PlanFile, prompts: str | None, poses: str | None) -> PlanFile:
    """The plan with other prompts and poses: a bundled set's name or a file; None keeps its own.

    A file is inlined. Raises ComparisonError that names it.
    """
    given = {"prompts": prompts, "poses": poses}
    fields = {name: text for name, text in given.items() if text is not None}
    return _changed(plan, **_inline_files(fields, Path)) if fields else plan


def with_recipes(plan: PlanFile, change: Callable[[Recipe], Recipe]) -> PlanFile:
    """The plan with every recipe changed and written out. Raises what `change` raises."""
    rows = []
    for row in plan.rows:
        data, recipe = row.model_dump(exclude_unset=True), plan.recipe_of(row)
        if recipe is not None:
            data = {key: data[key] for key in data if key not in ("preset", "changes")}
            data["recipe"] = change(recipe).model_dump()
        rows.append(data)
    return _changed(plan, rows=rows)


def _changed(plan: PlanFile, **fields: Any) -> PlanFile:
    return plan_file_from_data({**plan.model_dump(exclude_unset=True), **fields})


def bundled_plans() -> tuple[str, ...]:
    """Names of the bundled plans, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def find_plan(text: str) -> PlanFile:
    """A bundled plan by name, or the plan in a JSON file. Raises ComparisonError."""
    if text in bundled_plans():
        return read_plan_file(_FOLDER / f"{text}.json")
    if not text.lower().endswith(".json"):
        raise ComparisonError(
            f"There is no plan {text!r}: give a JSON file, or one of {', '.join(bundled_plans())}."
        )
    return read_plan_file(Path(text))


def read_plan_file(path: Path) -> PlanFile:
    """The plan in a JSON file, with everything checked that can be before training.

    Files named as prompts or poses must lie below the plan's folder. Raises ComparisonError, or
    RecipeError for a row's recipe.
    """
    data = read_json(path)
    if isinstance(data, dict):
        data = _inline_files(data, lambda name: _path_beside(path, name))
    return plan_file_from_data(data)


def _inline_files(data: Mapping[str, Any], place: Callable[[str], Path]) -> dict[str, Any]:
    """A plan's data with prompt and pose files inlined."""
    found = dict(data)
    prompts, poses = data.get("prompts"), data.get("poses")
    if isinstance(prompts, str) and prompts.lower().endswith(_FILES):
        found["prompts"] = read_prompt_set(place(prompts)).model_dump(exclude_unset=True)
    if isinstance(poses, str) and poses.lower().endswith(_FILES):
        found["poses"] = [pose.model_dump() for pose in read_poses(place(poses))]
    return found


def _path_beside(plan: Path, name: str) -> Path:
    """A file below a plan's folder: somebody else's plan must not read any other file."""
    parts = re.split(r"[/\\]", name)
    if {"", ".."} & {*parts} or re.search(r"[:\x00-\x1f]", name):
        raise ComparisonError(
            f"{plan} names {name!r}, but a plan may only read files in its own folder. Move the "
            "file there, or give it on the command line (--prompts FILE, --poses FILE)."
        )
    return plan.parent.joinpath(*parts)


def plan_file_from_data(data: Any) -> PlanFile:
    """The plan in parsed JSON, checked as by `read_plan_file`."""
    try:
        found = PlanFile.model_validate(data)
    except ValidationError as error:
        raise ComparisonError(format_validation_error(error, "plan", PlanFile)) from None
    for row in found.rows:
        found.recipe_of(row)
    found.matrix({})
    return found
