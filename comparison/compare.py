"""Runs a comparison from files to images: trains missing adapters, draws missing cells.

Every result is saved as soon as it is finished, so the same call resumes an interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..trainers.adapter import clip_skip_of, trained_prediction
from ..trainers.base_file import identify, weight_files
from ..trainers.digests import content_digest
from ..trainers.errors import RunCancelled
from ..trainers.files import write_atomic
from ..trainers.memory import release_memory
from ..trainers.optional_packages import hide_packages
from ..trainers.packages import require_dependencies, require_packages
from ..trainers.places import Places, cache_folder, runs_folder
from ..trainers.recipe import Recipe
from ..trainers.run_folder import Result
from .errors import ComparisonError
from .file_patterns import ENDING, expand_pattern, is_pattern, label_matches
from .matrix import Cell, Plan, Variant
from .plan_file import PlanFile, Row, with_files_of_patterns
from .poses import draw_pose
from .row_adapters import RowAdapter, read_row_adapter
from .study import cells_folder, encode_cell_png

if TYPE_CHECKING:
    import numpy as np

    from ..trainers.base_model import BaseModel


@dataclass(frozen=True)
class ComparisonFiles:
    """Where a comparison reads and writes on this machine.

    `adapters` maps row names to files; adapters that the plan names are looked up in `folders`.
    The other fields are as in a run's Places.
    """

    base: Path
    output: Path
    photos: Path | None = None
    controlnet: Path | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    class_images: Path | None = None
    tokenizers: tuple[Path, ...] = ()

    @property
    def runs(self) -> Path:
        """The folder that holds the run folders."""
        return runs_folder(self.output)


# Training.


# Takes recipes by row name; yields each row name with its result, in any order.
TrainRows = Callable[[Mapping[str, Recipe], Places], Generator[tuple[str, Result], None, None]]


def train_missing(
    plan: PlanFile, files: ComparisonFiles, train_rows: TrainRows
) -> list[RowAdapter]:
    """Returns the adapter of every row; `train_rows` trains missing ones or reuses finished runs.

    Raises ComparisonError for missing inputs and MissingPackage before anything is trained,
    RunCancelled for a training that was stopped, and what `train_rows` raises.
    """
    _check_control(plan, files)
    found = {row.name: find_adapter(row, files) for row in plan.rows}
    todo = [row for row in plan.rows if row.trained and found[row.name] is None]
    if todo and files.photos is None:
        names = ", ".join(row.name for row in todo)
        raise ComparisonError(
            f"Training these rows needs photographs (--photos FOLDER): {names}. "
            "To use an existing adapter instead, give --adapter ROW=FILE."
        )
    recipes = {row.name: recipe for row in todo if (recipe := plan.recipe_of(row))}
    for name in [name for name, recipe in recipes.items() if recipe.start]:
        raise ComparisonError(
            f"The row {name} would start from a LoRA file (method.start), which a comparison does "
            "not take. Train it with 'likeness train --start-from', then give its file with "
            f"--adapter {name}=FILE."
        )
    if recipes:
        require_dependencies()
    for recipe in recipes.values():
        require_packages(recipe)
    with closing(train_rows(recipes, _places(files))) as results:
        for name, result in results:
            if result.stopped:
                raise RunCancelled(
                    f"The training of {name} was stopped after {result.steps} of "
                    f"{result.recipe.schedule.steps} steps. Run the same command to resume it."
                )
            found[name] = result.adapter
    return [read_row_adapter(row.name, found[row.name], files.runs) for row in plan.rows]


def find_adapter(row: Row, files: ComparisonFiles) -> Path | None:
    """The file given for a row, or named by it; None for the base and for rows to train.

    Raises ComparisonError if the file is missing.
    """
    given = files.adapters.get(row.name)
    if given is not None:
        if not given.exists():
            raise ComparisonError(f"The adapter given for the row {row.name} is missing: {given}.")
        return given
    if row.adapter is None:
        return None
    for folder in files.folders:
        if (folder / row.adapter).exists():
            return folder / row.adapter
    places = ", ".join(str(folder) for folder in files.folders)
    raise ComparisonError(
        f"The row {row.name} needs {row.adapter}, which is not in {places}. Put it there, give its "
        f"folder with --adapters, or give the file with --adapter {row.name}=FILE."
    )


def expand_patterns(plan: PlanFile, files: ComparisonFiles) -> PlanFile:
    """The plan with a row for each file that matches the pattern in a row's `adapter`.

    Raises ComparisonError if there is none, or too many.
    """

    def find_files(row: Row) -> dict[str, str] | None:
        pattern = row.adapter or ""
        if row.name in files.adapters or not is_pattern(pattern):
            return None
        if any((folder / pattern).exists() for folder in files.folders):
            return None  # a file with this very name
        names = [name for folder in files.folders for name in _adapters_in(folder)]
        places = ", ".join(map(str, files.folders))
        found = expand_pattern(pattern, names, f"The row {row.name}", places)
        return dict(zip(label_matches(row.name, found), found, strict=True))

    return with_files_of_patterns(plan, find_files)


def _adapters_in(folder: Path) -> list[str]:
    """Names of the .safetensors files and diffusers folders in a folder, if it exists."""
    try:
        entries = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ComparisonError(f"{folder} cannot be read: {error.strerror}.") from None
    return [
        entry.name
        for entry in entries
        if entry.suffix.lower() == ENDING or (entry / "model_index.json").is_file()
    ]


def _places(files: ComparisonFiles) -> Places:
    return Places.for_output(
        files.output,
        base=files.base,
        photos=files.photos or Path(),
        class_images=files.class_images,
        tokenizers=files.tokenizers,
    )


# Drawing.


def resolve_plan(
    plan: PlanFile, row_adapters: Sequence[RowAdapter], files: ComparisonFiles
) -> Plan:
    """The plan with the digests of base, adapters and ControlNet. Raises BaseModelError."""
    cache = cache_folder(files.output)

    def digest(path: Path | None) -> str | None:
        return None if path is None else content_digest(path, cache)

    control = None if files.controlnet is None else _control_file(files.controlnet)
    adapters = {one.name: digest(one.adapter) for one in row_adapters}
    skips = {one.name: clip_skip_of(one.adapter) for one in row_adapters if one.adapter}
    predictions = {one.name: trained_prediction(one.adapter) for one in row_adapters if one.adapter}
    base_prediction = identify(files.base).prediction
    others = {
        name: kind for name, kind in predictions.items() if kind not in (None, base_prediction)
    }
    return plan.matrix(adapters, digest(files.base), digest(control), skips, others)


def _check_control(plan: PlanFile, files: ComparisonFiles) -> None:
    """Raises ComparisonError if the ControlNet is missing, before hours of training."""
    if files.controlnet is not None and not _control_file(files.controlnet).is_file():
        raise ComparisonError(f"There is no ControlNet at {_control_file(files.controlnet)}.")
    if files.controlnet is None and any(cell.with_pose for cell in plan.matrix({}).cells()):
        raise ComparisonError(
            "Some rows have poses: give an OpenPose ControlNet (--controlnet FILE), or "
            "omit those rows (--without-pose)."
        )


def _control_file(path: Path) -> Path:
    """The ControlNet's weights file. Raises LikenessError if a folder has none."""
    if not path.is_dir():
        return path
    first, *shards = weight_files(path)
    if shards:
        raise ComparisonError(
            f"The ControlNet in {path} is split into {len(shards)} files: save it as one file."
        )
    return first


def cell_files(plan: Plan, output: Path) -> list[Path]:
    """The image file of each cell, whether it exists or not."""
    return [cells_folder(output) / f"{plan.digest_of(cell)}.png" for cell in plan.cells()]


def draw_missing(
    plan: Plan,
    row_adapters: Sequence[RowAdapter],
    files: ComparisonFiles,
    *,
    on_cell: Callable[[Cell], None],
    device: str = "cpu",
    only: Collection[int] | None = None,
) -> None:
    """Draws the cells that have no file, variant by variant, and saves each one immediately.

    One model is in memory at a time. `on_cell` is called after each cell. `only` holds the indices
    of the cells to draw, in the plan's order; None: all. Raises the loaders' errors for files that
    do not fit.
    """
    adapters = {one.name: one.adapter for one in row_adapters}
    for variant, cells in _missing(plan, files.output, only):
        model = _Model(plan, variant, adapters[variant.name], files, device)
        for cell, path in cells:
            if not path.is_file():  # an identical cell may just have been drawn
                write_atomic(path, encode_cell_png(Image.fromarray(model.draw(cell))))
            on_cell(cell)
        del model
        release_memory()  # before the next model loads


def _missing(
    plan: Plan, output: Path, only: Collection[int] | None
) -> Iterator[tuple[Variant, list[tuple[Cell, Path]]]]:
    kept = [
        pair
        for number, pair in enumerate(zip(plan.cells(), cell_files(plan, output), strict=True))
        if only is None or number in only
    ]
    for variant in plan.variants:
        cells = [(c, p) for c, p in kept if c.variant == variant.name and not p.is_file()]
        if cells:
            yield variant, cells


class _Model:
    """A variant's model; the ControlNet is loaded for the first cell that needs it."""

    def __init__(
        self,
        plan: Plan,
        variant: Variant,
        adapter: Path | None,
        files: ComparisonFiles,
        device: str,
    ) -> None:
        hide_packages()
        from .sample import inference_dtype, load_with_adapter

        self._plan, self._files, self._device = plan, files, device
        self._dtype = inference_dtype(device)
        self._control: Any = None
        self._model: BaseModel = load_with_adapter(
            files.base,
            adapter,
            tokenizers=files.tokenizers,
            strength=variant.strength_unet,
            strength_text=variant.strength_text,
            device=device,
            dtype=self._dtype,
        )

    def draw(self, cell: Cell) -> np.ndarray:
        """The cell's image (height, width, 3), uint8."""
        from .sample import draw

        image = self._plan.image
        return draw(
            self._model,
            [cell.prompt],
            negative=cell.negative,
            width=image.width,
            height=image.height,
            steps=image.steps,
            guidance=image.guidance,
            seed=cell.seed,
            clip_skip=self._plan.variant_of(cell).clip_skip,
            control=self._residuals(cell),
        )[0]

    def _residuals(self, cell: Cell) -> Any:
        pose = self._plan.fitted_pose_of(cell)
        if pose is None or self._files.controlnet is None:
            return None
        from .controlnet import controlnet_for_hint, load_controlnet

        if self._control is None:
            self._control = load_controlnet(
                self._files.controlnet, self._model.unet, device=self._device, dtype=self._dtype
            )
        hint = draw_pose(pose, self._plan.image.width, self._plan.image.height)
        return controlnet_for_hint(self._control, hint, self._plan.control.strength)
