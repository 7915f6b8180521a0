"""Likeness_Matrix: variants by prompts; in the workflow, its outputs stand for one cell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ..comparison.errors import ComparisonError
from ..comparison.keypoints import keypoints_of_poses
from ..comparison.matrix import Cell, Plan, WithPose, plan_from_data
from ..comparison.poses import Pose, fit_pose
from ..comparison.prompts import PromptSet
from ..trainers.digests import content_digest
from ..trainers.errors import AdapterError, LikenessError
from ..trainers.places import cache_folder
from .cells import CellValues
from .host import execution_blocker, io, output_folder
from .load_adapter import adapter_fingerprint, adapter_names, find_adapter
from .node_state import publish
from .rows import (
    BASE,
    SOCKETS,
    SYNTAX_HINT,
    Row,
    assign_labels,
    check_rows,
    expand_steps,
    parse_pose_rows,
    parse_rows,
    resolve_sockets,
)
from .sockets import MatrixType, PosesType, PromptsType
from .widgets import float_widget, int_widget, seed, size_widget, with_search_aliases

# Indices of the outputs, in the order of `CellMatrix.values`.
ADAPTER, PROMPT, NEGATIVE, SEED, POSE, STRENGTH, LABEL, WIDTH, HEIGHT = range(9)
ADAPTER_STRENGTH = 10  # after `matrix` (9): saved links hold output indices, so it was appended
# Outputs that are the same in all cells of a variant.
VARIANT_OUTPUTS = frozenset({ADAPTER, NEGATIVE, WIDTH, HEIGHT, ADAPTER_STRENGTH})

POSE_MODES = get_args(WithPose)
UNCONNECTED = object()  # the default of an input that is not connected


@dataclass(frozen=True)
class CellMatrix:
    """LIKENESS_MATRIX: a plan, the adapter name of each variant, and the id of its node."""

    plan: Plan
    adapters: tuple[str, ...]
    node_id: str

    def values(self, cell: Cell) -> CellValues:
        """The Matrix's outputs in a cell; the pose is its keypoints as JSON, or ""."""
        index = self.plan.variants.index(self.plan.variant_of(cell))
        width, height = self.plan.image.width, self.plan.image.height
        pose = self.plan.pose_of(cell)
        return (
            self.adapters[index],
            cell.prompt,
            cell.negative,
            cell.seed,
            "" if pose is None else _keypoints(pose, width, height),
            0.0 if pose is None else self.plan.control.strength,
            self.plan.rows()[cell.row],
            width,
            height,
            None,  # the matrix itself
            self.plan.variants[index].strength_unet,
        )


def _keypoints(pose: Pose, width: int, height: int) -> str:
    fitted = fit_pose(pose, width, height)
    return json.dumps(keypoints_of_poses([fitted], width, height), sort_keys=True)


class Matrix(io.ComfyNode):
    """The plan of a comparison. A Contact Sheet supplies its outputs for each cell."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_Matrix",
            display_name="Matrix (Likeness)",
            category="Likeness",
            description=(
                "Compares adapters (rows) on prompts (columns), with the same noise down a column. "
                "Wire the outputs to the nodes that generate one image, and that image to a "
                "Contact Sheet, which runs them once per cell. Without one, they do not run."
            ),
            inputs=[*_axes(), *_image(), *_connected()],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            not_idempotent=True,  # the plan holds its node's id, so an identical node differs
        )
        return with_search_aliases(schema, "xy plot", "xyz plot", "grid", "compare loras", "x/y/z")

    @classmethod
    def validate_inputs(
        cls,
        adapters: str | None = None,
        pose_rows: str | None = None,
        with_pose: str | None = None,
        poses: Any = UNCONNECTED,
        adapter_1: Any = UNCONNECTED,
        adapter_2: Any = UNCONNECTED,
        adapter_3: Any = UNCONNECTED,
        adapter_4: Any = UNCONNECTED,
        adapter_5: Any = UNCONNECTED,
        adapter_6: Any = UNCONNECTED,
        adapter_7: Any = UNCONNECTED,
        adapter_8: Any = UNCONNECTED,
    ) -> bool:
        """Checks that the rows can be drawn, before anything is trained.

        Raises LikenessError. None stands for a connected input.
        """
        sockets = (
            *(adapter_1, adapter_2, adapter_3, adapter_4),
            *(adapter_5, adapter_6, adapter_7, adapter_8),
        )
        _listed_files(adapters)
        if adapters is not None:
            wired = [
                key for key, value in zip(SOCKETS, sockets, strict=True) if value is not UNCONNECTED
            ]
            check_rows(adapters, wired, pose_rows or "", adapter_names())
        if with_pose not in (None, *POSE_MODES):  # ComfyUI skips its own check of arguments here
            raise ComparisonError(
                f"with_pose is {with_pose!r}: choose one of {', '.join(POSE_MODES)}."
            )
        if with_pose in ("with", "both") and poses is UNCONNECTED:
            raise ComparisonError(
                f"with_pose is {with_pose!r}, but the Matrix has no poses: connect a Pose Set, "
                "or choose 'without'."
            )
        return True

    @classmethod
    def fingerprint_inputs(cls, adapters: str | None = None, **_: Any) -> str:
        """Changes when a file of `adapters` is replaced, or others match one of its patterns."""
        try:
            files = _listed_files(adapters)
        except LikenessError as error:
            return str(error)
        return repr([(name, path and adapter_fingerprint(path)) for name, path in files])

    @classmethod
    def execute(
        cls,
        prompts: PromptSet,
        adapters: str,
        seed: int,
        draws: int,
        with_pose: str,
        pose_rows: str,
        control_strength: float,
        width: int,
        height: int,
        poses: tuple[Pose, ...] = (),
        **connected: Any,
    ) -> io.NodeOutput:
        """The plan; all other outputs block execution outside a Contact Sheet."""
        files = {
            key: _check_connected(key, connected[key])
            for key in SOCKETS
            if connected.get(key) is not None
        }
        lines = parse_rows(adapters, adapter_names())
        rows = assign_labels(_expand_steps(resolve_sockets(lines, files)))
        posed = parse_pose_rows(pose_rows, (row.label for row in rows))
        matrix = plan_from_data(
            {
                "variants": tuple(_variant(row, row.label in posed) for row in rows),
                "prompts": prompts,
                "poses": tuple(poses or ()),
                "seed": seed,
                "with_pose": with_pose,
                "draws": draws,
                "image": {"width": width, "height": height},
                "control": {"strength": control_strength},
            }
        )
        publish(cls.hidden, "poses", poses_by_column(matrix))
        value = CellMatrix(matrix, tuple(row.name for row in rows), str(cls.hidden.unique_id))
        return io.NodeOutput(*[execution_blocker()] * 9, value, execution_blocker())


def poses_by_column(matrix: Plan) -> dict[str, str]:
    """The pose by column, for columns that have one; shown in the pose picker."""
    return {cell.key: cell.pose for cell in matrix.cells() if cell.pose is not None}


def _check_connected(socket: str, value: Any) -> str:
    """The name of a connected adapter. Raises ComparisonError unless it is a string."""
    if isinstance(value, str):
        return value
    raise ComparisonError(
        f"The value connected to the Matrix's {socket} is not a file name: is the train node there "
        "bypassed? Connect its adapter, or remove its line from adapters and pose_rows."
    )


def _listed_files(adapters: str | None) -> list[tuple[str, Path | None]]:
    """The names and files of the rows in `adapters`, without sockets. Raises LikenessError."""
    lines = parse_rows(adapters, adapter_names()) if adapters else []
    rows = [row for row in lines if row.name not in SOCKETS]
    try:
        for row in rows:
            _adapter_path(row.name)
    except AdapterError as error:
        raise ComparisonError(f"{error} {SYNTAX_HINT}") from None
    return [(row.name, _adapter_path(row.name)) for row in _expand_steps(rows)]


def _expand_steps(rows: list[Row]) -> list[Row]:
    """The rows, with ``@ steps`` expanded. Raises ComparisonError."""
    return expand_steps(rows, adapter_names()) if any(row.all_steps for row in rows) else rows


def _adapter_path(name: str) -> Path | None:
    """The adapter's file; None for the base and for sockets. Raises AdapterError."""
    return None if name in (BASE, *SOCKETS) else find_adapter(name)


def _variant(row: Row, posed: bool) -> dict[str, Any]:
    return {
        "name": row.label,
        "adapter": _digest(row.name),
        "strength_unet": row.strength,
        "strength_text": row.strength,
        "with_pose": None if posed else "without",
    }


def _digest(name: str) -> str | None:
    path = _adapter_path(name)
    return content_digest(path, cache_folder(output_folder())) if path else None


def _axes() -> list[io.Input]:
    return [
        PromptsType.Input("prompts", tooltip="The columns, from Prompt Set."),
        io.String.Input(
            "adapters",
            multiline=True,
            default="base",
            tooltip="The rows, one per line: a file in loras or checkpoints, a folder in "
            "diffusers, or 'base' for the unmodified model. 'r4 = anna-lora.safetensors' names the "
            "row, 'r4 = adapter_1' the row of a connected adapter. 'anna-lora.safetensors @ 0.7' "
            "sets the strength; '@ steps' makes a row of each file saved during its training. "
            "'anna-*.safetensors' makes a row of each file that matches; ? is one character. "
            "Spaces around = and @ are optional.",
        ),
        seed("seed", "Seed of the initial noise, which all rows of a column share."),
        int_widget(
            "draws", 1, 1, 100, "Images per prompt, each in its own column with the next seed."
        ),
        io.Combo.Input(
            "with_pose",
            options=list(POSE_MODES),
            default="without",
            tooltip="Generate each adapter's images without a pose, with one, or both (two rows).",
        ),
        io.String.Input(
            "pose_rows",
            multiline=True,
            default="",
            tooltip="Names of the rows that with_pose applies to, one per line; empty: all. The "
            "others have no pose.",
        ),
    ]


def _image() -> list[io.Input]:
    return [
        float_widget(
            "control_strength",
            1.0,
            0.0,
            10.0,
            0.05,
            "ControlNet strength in cells with a pose; 0 in the others.",
        ),
        size_widget("width", 512, "Width of an image."),
        size_widget("height", 768, "Height of an image."),
    ]


def _connected() -> list[io.Input]:
    adapter = "One more row: a train node's adapter, whose name is known once it is trained."
    return [
        PosesType.Input(
            "poses",
            optional=True,
            tooltip="From Pose Set; the seed picks one for each column.",
        ),
        *(io.AnyType.Input(name, optional=True, tooltip=adapter) for name in SOCKETS),
    ]


def _outputs() -> list[io.Output]:
    return [
        io.AnyType.Output(id="adapter", display_name="adapter", tooltip="For Load Adapter."),
        io.String.Output(id="prompt", display_name="prompt"),
        io.String.Output(id="negative", display_name="negative"),
        io.Int.Output(id="cell_seed", display_name="seed"),
        io.Image.Output(id="pose", display_name="pose", tooltip="Black in cells without a pose."),
        io.Float.Output(id="strength", display_name="control_strength"),
        io.String.Output(id="label", display_name="label", tooltip="The row's name."),
        io.Int.Output(id="cell_width", display_name="width"),
        io.Int.Output(id="cell_height", display_name="height"),
        MatrixType.Output(id="matrix", display_name="matrix", tooltip="For Contact Sheet."),
        io.Float.Output(
            id="adapter_strength",
            display_name="adapter_strength",
            tooltip="For both of Load Adapter's strengths: 1 unless the row sets another.",
        ),
    ]
