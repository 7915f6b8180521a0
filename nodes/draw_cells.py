"""The nodes that a Contact Sheet expands to: they draw, save and show the cells.

ComfyUI runs ready nodes in its own order and walks chains of nodes recursively. The missing cells
are therefore bisected, first by variant and then by cell: the second half waits for the first, and
a cell's nodes are created only when it is due. ComfyUI also drops results that no pending node
links to, so each half is linked to the results that its cells share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
from PIL import Image

from ..trainers.memory import set_mmap_threshold, trim_heap
from .cells import CellGraph, CellValues, NodeKey, copy_nodes, shared_links
from .host import (
    Progress,
    clear_progress,
    execution_blocker,
    graph_builder,
    io,
    is_caching_enabled,
    is_eager_input,
    output_folder,
    unload_patched_models,
)
from .matrix import POSE, VARIANT_OUTPUTS, CellMatrix
from .pose_set import ALL_POSES
from .redraw_requests import clear_redraw_request
from .sockets import JobType, StudyType
from .study import CellWriter, Study, tensor_to_image, write_partial_study, write_study
from .viewer import CellNotifier, thumbnail_path, write_view

WRITER = CellWriter()
# Returned comparisons: the files of the cells, by name and sheet.
_returned_sheets: dict[str, dict[Path, tuple[Path, ...]]] = {}


@dataclass(frozen=True)
class Job:
    """LIKENESS_JOB: a comparison in progress.

    `values` and `files` cover all cells, `missing` the indices of those to draw, in order;
    `skipped` counts cells that have no file and are not drawn.
    `copies` are the node copies that a variant's cells share, None while there are several
    variants. `remark` is a sentence on the rows, or "".
    The repr is short: ComfyUI keeps that of a failed node's inputs.
    """

    matrix: CellMatrix = field(repr=False)
    graph: CellGraph = field(repr=False)
    values: tuple[CellValues, ...] = field(repr=False)
    files: tuple[Path, ...] = field(repr=False)
    missing: tuple[int, ...] = field(repr=False)
    skipped: int
    copies: Mapping[NodeKey, str] | None = field(repr=False)
    node_id: str
    name: str
    suffix: str
    text: Mapping[str, Any] = field(repr=False)
    started: float
    notifier: CellNotifier = field(repr=False)
    remark: str = ""


def _hide_from_menus(schema: io.Schema) -> io.Schema:
    """Hides the node from menus."""
    if hasattr(schema, "is_dev_only"):
        schema.is_dev_only = True
    else:  # ComfyUI 0.8.0 hides deprecated nodes
        schema.is_deprecated = True
    return schema


class DrawCells(io.ComfyNode):
    """Draws cells one after another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _hide_from_menus(
            io.Schema(
                node_id="Likeness_DrawCells",
                display_name="Draw Cells (Likeness, internal)",
                category="Likeness",
                description="Part of Contact Sheet: generates cells one after another.",
                inputs=[
                    JobType.Input("job", tooltip="The comparison."),
                    io.Int.Input("first", tooltip="Index of the first missing cell to generate."),
                    io.Int.Input("count", tooltip="How many to generate."),
                    io.AnyType.Input("after", optional=True, tooltip="Cells to wait for."),
                ],
                outputs=[io.AnyType.Output(id="done", display_name="done")],
                enable_expand=True,
                is_input_list=True,  # a shared result may be a list: run only once
            )
        )

    @classmethod
    def execute(cls, job: list[Job], first: list[int], count: list[int], **_: Any) -> io.NodeOutput:
        """Expands to two halves, to the nodes a variant's cells share, or to those of one cell.

        The other inputs only order execution and keep results cached.
        """
        builder, done = _expand(job[0], first[0], count[0])
        return io.NodeOutput(done, expand=builder.finalize())


def draw_cells(builder: Any, job: Job, first: int, count: int, after: Any = None) -> Any:
    """Adds a node that draws missing cells after `after`; returns the link to its output."""
    node = builder.node("Likeness_DrawCells", job=job, first=first, count=count)
    node.set_input("after", after)
    if is_caching_enabled():
        values = job.values[job.missing[first]]
        links = shared_links(job.graph, values, job.copies or {}, is_eager_input)
        for number, link in enumerate(links):
            node.set_input(f"kept_{number}", link)
    return node.out(0)


def _expand(job: Job, first: int, count: int) -> tuple[Any, Any]:
    """A builder with the nodes that draw these cells, and the link that marks them done."""
    variants = [_variant_values(job, number) for number in range(first, first + count)]
    changes = [n for n in range(1, count) if variants[n] != variants[n - 1]]
    if not changes and job.copies is None:
        builder = graph_builder(f"{job.node_id}.{first}v{count}.")
        job = replace(job, copies=_copy_shared_nodes(builder, job, job.values[job.missing[first]]))
        return builder, draw_cells(builder, job, first, count)
    builder = graph_builder(f"{job.node_id}.{first}-{count}.")
    if count == 1:
        return builder, _expand_cell(builder, job, first)
    middle = min(changes or [count // 2], key=lambda n: abs(2 * n - count))
    done = draw_cells(builder, job, first, middle)
    return builder, draw_cells(builder, job, first + middle, count - middle, done)


def _variant_values(job: Job, number: int) -> CellValues:
    """The output values shared by all cells of a missing cell's variant."""
    values = job.values[job.missing[number]]
    return tuple(values[output] for output in sorted(VARIANT_OUTPUTS))


def _copy_shared_nodes(builder: Any, job: Job, values: CellValues) -> dict[NodeKey, str]:
    """Adds the copies that all cells of a variant share, such as its loaded adapter."""
    copies: dict[NodeKey, str] = {}
    copy_nodes(job.graph, values, builder, copies, VARIANT_OUTPUTS.issuperset, values.__getitem__)
    return copies


def _expand_cell(builder: Any, job: Job, number: int) -> Any:
    values = job.values[job.missing[number]]
    pose = _add_pose_node(builder, job, values[POSE])

    def wire(output: int) -> Any:
        return pose if output == POSE else values[output]

    copies = dict(job.copies or {})
    copy_nodes(job.graph, values, builder, copies, lambda uses: True, wire)
    node_id, output = job.graph.image
    image = [copies[job.graph.key(node_id, values)], output]
    keep = builder.node("Likeness_KeepCell", image=image, job=job, number=number)
    return keep.out(0)


def _add_pose_node(builder: Any, job: Job, keypoints: str) -> Any:
    """Adds a node that outputs the pose's image, black without a pose; returns its link."""
    size = {"width": job.matrix.plan.image.width, "height": job.matrix.plan.image.height}
    if keypoints:
        frames = json.loads(keypoints)
        return builder.node("Likeness_PoseSet", poses=ALL_POSES, keypoints=frames, **size).out(1)
    return builder.node("EmptyImage", batch_size=1, color=0, **size).out(0)


class KeepCell(io.ComfyNode):
    """Saves a finished cell."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _hide_from_menus(
            io.Schema(
                node_id="Likeness_KeepCell",
                display_name="Keep Cell (Likeness, internal)",
                category="Likeness",
                description="Part of Contact Sheet: saves a finished cell.",
                inputs=[
                    io.Image.Input("image", tooltip="The finished cell."),
                    JobType.Input("job", tooltip="The comparison."),
                    io.Int.Input("number", tooltip="Its index among the missing cells."),
                ],
                outputs=[io.AnyType.Output(id="done", display_name="done")],
            )
        )

    @classmethod
    def execute(cls, image: torch.Tensor, job: Job, number: int) -> io.NodeOutput:
        """The file's name. Raises ComparisonError for more than one image."""
        path, pixels = job.files[job.missing[number]], tensor_to_image(image)
        WRITER.write(path, pixels, partial(_on_cell_written, job, job.missing[number]))
        clear_progress(job.node_id)
        left = len(job.missing) - number - 1
        variant_ends = left > 0 and _variant_values(job, number + 1) != _variant_values(job, number)
        if variant_ends:
            unload_patched_models()
        set_mmap_threshold(variant_ends)  # the weights of the next variant
        if variant_ends or not left:  # not for each cell: the next would reallocate the pages
            trim_heap()  # otherwise freed weights of earlier variants accumulate
        progress, total = Progress(job.node_id), len(job.files) - job.skipped
        progress.show(total - left, total, pixels)
        line = progress_line(total, number + 1, left, time.time() - job.started)
        progress.set_status(line)
        job.notifier.set_status(line)
        return io.NodeOutput(path.name)


def _on_cell_written(job: Job, index: int) -> None:
    """Notes that a cell's file is written."""
    clear_redraw_request(job.name, job.files[index])
    job.notifier.drawn(index)


def progress_line(total: int, drawn: int, left: int, seconds: float) -> str:
    """Cells done and left, and the time left at the rate of `drawn` cells in `seconds`."""
    line = f"{total - left} of {total} cells done, {left} left"
    if not left:
        return line
    wait = seconds / drawn * left
    return f"{line}, about {f'{wait / 60:.0f} min' if wait >= 90 else f'{wait:.0f} s'}"


class DrawSheet(io.ComfyNode):
    """Assembles the sheet of finished cells."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _hide_from_menus(
            io.Schema(
                node_id="Likeness_DrawSheet",
                display_name="Draw Sheet (Likeness, internal)",
                category="Likeness",
                description="Part of Contact Sheet: assembles the sheet from the finished cells.",
                inputs=[
                    JobType.Input("job", tooltip="The comparison."),
                    io.AnyType.Input("after", optional=True, tooltip="Cells to wait for."),
                ],
                outputs=[
                    io.Image.Output(id="sheet", display_name="sheet"),
                    StudyType.Output(id="study", display_name="study"),
                ],
            )
        )

    @classmethod
    def execute(cls, job: Job, after: Any = None) -> io.NodeOutput:
        """(IMAGE, study), and the sheet shown on the Contact Sheet."""
        return finished(job)


def finished(job: Job) -> io.NodeOutput:
    """A Contact Sheet's output once all requested cells are drawn.

    If cells were skipped, the study output blocks the nodes that depend on it.
    """
    WRITER.wait()
    job.notifier.flush()
    study, sheet = write_partial(job) if job.skipped else write_complete(job)
    _returned_sheets.setdefault(job.name, {})[study.sheet] = () if job.skipped else job.files
    job.notifier.finished()
    image = torch.from_numpy(np.array(sheet)).float().div_(255)[None]
    Progress(job.node_id).set_status(_last_line(job))
    return io.NodeOutput(image, execution_blocker() if job.skipped else study, ui=ui_output(study))


def _last_line(job: Job) -> str:
    total, drawn = len(job.files), len(job.missing)
    line = f"{total} cells: {drawn} generated now, {total - drawn - job.skipped} reused"
    line += f", {job.skipped} skipped by draw_only" if job.skipped else ""
    return f"{line}. {job.remark}" if job.remark else line


def has_missing_files(name: str | None) -> bool:
    """Whether a file of a returned sheet has disappeared; reported once per sheet.

    The files are the sheet, its cells and their thumbnails. None: of comparisons of any name.
    """
    names = list(_returned_sheets) if name is None else [normalize("NFC", name)]
    sheets = [(one, sheet) for one in names for sheet in _returned_sheets.get(one, ())]
    files = {
        (n, s): (s, *_returned_sheets[n][s], *map(thumbnail_path, _returned_sheets[n][s]))
        for n, s in sheets
    }
    gone = [key for key, paths in files.items() if not all(path.is_file() for path in paths)]
    for one, sheet in gone:
        del _returned_sheets[one][sheet]
    return bool(gone)


def write_partial(job: Job) -> tuple[Study, Image.Image]:
    """Writes the sheet of the existing cells; keeps an earlier comparison's other files."""
    plan = job.matrix.plan
    study, sheet = write_partial_study(output_folder(), job.name, plan, job.files, job.text)
    write_view(study.folder, plan, job.files, None, job.remark)
    return study, sheet


def write_complete(job: Job) -> tuple[Study, Image.Image]:
    """Writes the comparison's files and sheet, replacing an earlier one of the same name."""
    plan = job.matrix.plan
    study, sheet = write_study(
        output_folder(), job.name, plan, job.files, job.suffix, job.text, by_graph=True
    )
    write_view(study.folder, plan, job.files, study.sheet.name, job.remark)
    return study, sheet


def ui_output(study: Study) -> dict[str, Any]:
    """The node's UI output, which shows the sheet."""
    where = study.sheet.relative_to(output_folder())
    image = {"filename": where.name, "subfolder": where.parent.as_posix(), "type": "output"}
    return {"images": [image]}
