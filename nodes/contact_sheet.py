"""Likeness_ContactSheet: draws a Matrix cell by cell with the user's nodes, and shows the sheet."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from ..comparison.errors import ComparisonError
from ..comparison.matrix import Plan
from ..trainers.memory import set_mmap_threshold
from ..trainers.places import cache_folder
from ..trainers.recipe import check_name
from .cells import CellGraph, Node, cell_digests, is_link, read_cell_graph
from .controlnet_check import check_controlnets
from .draw_cells import (
    WRITER,
    Job,
    draw_cells,
    finished,
    has_missing_files,
    ui_output,
    write_partial,
)
from .file_digests import base_mismatch_warning, make_file_digester
from .host import (
    ADVANCED,
    Progress,
    graph_builder,
    io,
    is_metadata_enabled,
    model_path,
    output_folder,
)
from .matrix import ADAPTER, ADAPTER_STRENGTH, POSE, PROMPT, CellMatrix
from .node_state import publish
from .paths import normalised_name
from .redraw_requests import has_redraw_request, requested_cells
from .sockets import MatrixType, StudyType
from .static_plan import current_prompt, static_plan
from .study import cells_folder, select_cells, study_folder
from .untrained_rows import check_untrained_rows
from .viewer import CellNotifier
from .widgets import with_search_aliases

NODE_ID = "Likeness_ContactSheet"
log = logging.getLogger("likeness")
_redraw_token = ""  # changes whenever the node must run again


class ContactSheet(io.ComfyNode):
    """Runs the nodes between a Matrix and itself once for each missing cell."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_ContactSheet",
            display_name="Contact Sheet (Likeness)",
            category="Likeness",
            description=(
                "Generates every cell of a Matrix, one after another, with the nodes that you "
                "wired between the two, and shows them side by side. Finished cells are kept as "
                "files: after a cancel, a restart or a changed prompt, only missing cells are "
                "generated. The sheet's PNG contains the workflow."
            ),
            inputs=_inputs(),
            outputs=[
                io.Image.Output(id="sheet", display_name="sheet"),
                StudyType.Output(
                    id="study", display_name="study", tooltip="The comparison, for Score."
                ),
            ],
            hidden=[
                io.Hidden.unique_id,
                io.Hidden.dynprompt,
                io.Hidden.prompt,
                io.Hidden.extra_pnginfo,
            ],
            is_output_node=True,
            enable_expand=True,
            not_idempotent=True,
        )
        return with_search_aliases(schema, "xy plot", "xyz plot", "grid", "image grid", "compare")

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool:
        """Checks that the comparison can be drawn, as far as is known before the queue starts.

        Raises LikenessError. None stands for a connected input.
        """
        if name is not None:
            folder_name(name)
        check_prompt(current_prompt(), str(getattr(cls.hidden, "unique_id", None)))
        return True

    @classmethod
    def fingerprint_inputs(
        cls,
        name: str | None = None,
        redraw: str | None = None,
        draw_only: str | None = "",
        **_: Any,
    ) -> str:
        """Changes at each queue while cells are to be redrawn or selected, or files are missing.

        None stands for a connected input.
        """
        global _redraw_token
        lines = (redraw, draw_only)
        chosen = any(text is None or text.strip() for text in lines)
        if chosen or has_redraw_request(name) or has_missing_files(name):
            _redraw_token = str(time.time_ns())
        return _redraw_token  # never back to "": ComfyUI would reuse its result with the old cells

    @classmethod
    def check_lazy_status(cls, **_: Any) -> list[str]:
        """Never requests the image: the nodes behind it are copied instead."""
        return []

    @classmethod
    def execute(
        cls,
        image: Any,
        matrix: CellMatrix,
        name: str,
        single_images: str,
        redraw: str,
        draw_only: str = "",
    ) -> io.NodeOutput:
        """(IMAGE, study). Raises ComparisonError if the image does not come from the Matrix."""
        name = folder_name(name)
        check_unique_name(cls.hidden.prompt or {}, str(cls.hidden.unique_id), name)
        job = make_job(cls.hidden, image, matrix, name, single_images, redraw, draw_only)
        output = expand_job(job) if job.missing else finished(job)
        publish(cls.hidden, "comparison", name)
        return output


def _inputs() -> list[io.Input]:
    return [
        io.Image.Input(
            "image",
            lazy=True,
            raw_link=True,
            tooltip="The image of one cell, such as VAE Decode's.",
        ),
        MatrixType.Input("matrix", tooltip="From the Matrix that the image depends on."),
        io.String.Input(
            "name",
            default="comparison",
            tooltip="Folder of the results in output/likeness/comparisons. Overwritten once the "
            "next comparison of the same name is complete.",
        ),
        io.Combo.Input(
            "single_images",
            options=["png", "jpg"],
            default="png",
            tooltip="Format of the single images saved next to the sheet.",
        ),
        io.String.Input(
            "redraw",
            multiline=True,
            default="",
            extra_dict=ADVANCED,
            tooltip="Cells to generate again at each queue, one per line: 'row / column', a "
            "row or a column; * matches any text.",
        ),
        io.String.Input(
            "draw_only",
            multiline=True,
            default="",
            optional=True,
            extra_dict=ADVANCED,
            tooltip="Generates only these cells, to try some first; written as in redraw. The "
            "others stay empty and Score does not run. Empty: all.",
        ),
    ]


def folder_name(name: str) -> str:
    """The name of the comparison's folder. Raises ComparisonError."""
    try:
        return check_name(name)
    except ValueError as error:
        raise ComparisonError(
            f"{name!r} cannot be used as the comparison's name: {error}."
        ) from None


def check_prompt(prompt: Mapping[str, Node], node_id: str) -> None:
    """Raises LikenessError if the Contact Sheet `node_id` cannot be drawn.

    Checks what a prompt tells before it runs; errors that other nodes report are ignored.
    """
    if prompt.get(node_id, {}).get("class_type") != NODE_ID:
        return
    inputs = prompt[node_id]["inputs"]
    if isinstance(inputs.get("name"), str):
        check_unique_name(prompt, node_id, inputs["name"])
    image, matrix = inputs.get("image"), inputs.get("matrix")
    if not (is_link(image) and is_link(matrix)):
        return
    try:
        check_untrained_rows(prompt, matrix[0])
        known = static_plan(prompt, matrix[0])
        graph = known and read_cell_graph(prompt.__getitem__, image, matrix[0])
    except KeyError:  # a dangling link, which ComfyUI reports
        return
    if graph and known:
        check_graph(graph, known.plan)
    if known and known.names_known:
        for text in (inputs.get("redraw"), inputs.get("draw_only")):
            select_cells(known.plan, text if isinstance(text, str) else "")


def check_unique_name(prompt: Mapping[str, Node], node_id: str, name: str) -> None:
    """Raises ComparisonError if another Contact Sheet in the prompt has the same name."""
    for other_id, node in prompt.items():
        other = node.get("inputs", {}).get("name")
        others = node.get("class_type") == NODE_ID and str(other_id) != node_id
        if others and isinstance(other, str) and normalised_name(other) == normalised_name(name):
            raise ComparisonError(
                f"Two Contact Sheets are called {name!r} and would overwrite each other's files: "
                "rename one of them."
            )


def make_job(
    hidden: Any,
    image: Any,
    matrix: CellMatrix,
    name: str,
    suffix: str,
    redraw: str,
    draw_only: str,
) -> Job:
    """The cells to draw: those of `draw_only` that have no file or are in `redraw`."""
    Progress(hidden.unique_id).set_status("Looking for finished cells")
    _finish_pending()
    output, known = output_folder(), cache_folder(output_folder())
    graph = read_cell_graph(hidden.dynprompt.get_node, image, matrix.node_id)
    check_graph(graph, matrix.plan)
    values = tuple(matrix.values(cell) for cell in matrix.plan.cells())
    digests = cell_digests(graph, values, make_file_digester(known))
    files = tuple(cells_folder(output) / f"{digest}.png" for digest in digests)
    requested = requested_cells(name, files)
    redrawn = select_cells(matrix.plan, redraw) | requested
    selected = (select_cells(matrix.plan, draw_only) or set(range(len(files)))) | requested
    remark = base_mismatch_warning(matrix, graph.nodes, known)
    missing = {
        files[index]: index
        for index in sorted(selected, reverse=True)
        if index in redrawn or not files[index].is_file()
    }
    return Job(
        matrix=matrix,
        graph=graph,
        values=values,
        files=files,
        missing=tuple(sorted(missing.values())),
        skipped=sum(not path.is_file() and path not in missing for path in files),
        copies=None,
        node_id=str(hidden.unique_id),
        name=name,
        suffix=suffix,
        text=workflow_metadata(hidden) if is_metadata_enabled() else {},
        started=time.time(),
        notifier=CellNotifier(hidden, study_folder(output, name), matrix.plan, files, remark),
        remark=remark,
    )


def _finish_pending() -> None:
    """Cleans up after a cancelled queue: a cell still being written, and a malloc setting."""
    set_mmap_threshold(False)
    try:
        WRITER.wait()
    except ComparisonError as error:  # of that queue; the cell stays missing and is drawn if needed
        log.warning("%s", error)


def check_graph(graph: CellGraph, plan: Plan) -> None:
    """Raises ComparisonError if the nodes of a cell cannot draw the plan."""
    check_controlnets(graph.nodes, model_path)
    check_connections(graph.uses[graph.image[0]], plan)


def check_connections(uses: Collection[int], plan: Plan) -> None:
    """Raises ComparisonError if cells differ in a Matrix output that their nodes do not use.

    `uses` are the outputs of the Matrix that a cell's image depends on.
    """
    trained = [variant.name for variant in plan.variants if variant.adapter is not None]
    if trained and ADAPTER not in uses:
        raise ComparisonError(
            f"Row {trained[0]} has an adapter, but nothing uses it: every row would be the base. "
            "Wire the Matrix's adapter to Load Adapter, and its model and clip to the nodes that "
            "generate the image; a bypassed Load Adapter loads nothing."
        )
    scaled = [variant.name for variant in plan.variants if variant.strength_unet != 1]
    if scaled and ADAPTER_STRENGTH not in uses:
        raise ComparisonError(
            f"Row {scaled[0]} has a strength, but nothing uses it: wire the Matrix's "
            "adapter_strength to strength_model and strength_clip of Load Adapter."
        )
    posed = [row for row in plan.rows() if row not in {one.name for one in plan.variants}]
    if posed and POSE not in uses:
        raise ComparisonError(
            f"Row {posed[0]} has poses, but nothing uses them: wire the Matrix's pose to the "
            "image of Apply ControlNet, or set with_pose to 'without'."
        )
    if len(plan.prompts.prompts) > 1 and PROMPT not in uses:
        raise ComparisonError(
            "There are several prompts, but nothing uses them: every column would be the same. "
            "Wire the Matrix's prompt to the text of CLIP Text Encode."
        )


def workflow_metadata(hidden: Any) -> dict[str, Any]:
    """ComfyUI's PNG metadata: the queued prompt, and the browser's workflow."""
    kept = ("class_type", "inputs", "_meta")  # ComfyUI adds fingerprints, which may not be JSON
    prompt = {
        node_id: {part: node[part] for part in kept if part in node}
        for node_id, node in hidden.prompt.items()
    }
    return {"prompt": prompt, **(hidden.extra_pnginfo or {})}


def expand_job(job: Job) -> io.NodeOutput:
    """Expands to the nodes that draw the missing cells and then the sheet.

    Until then the sheet shows empty frames under the final file name, by which ComfyUI shows it
    again when nothing has changed. The comparison's folder stays as it is until the sheet is
    complete.
    """
    # Ids of this run alone: ComfyUI may reuse the results of nodes with the same ids from an
    # earlier one, and draw the former content of a replaced file, or not redraw a cell at all.
    builder = graph_builder(f"{job.node_id}.{job.started}.")
    done = draw_cells(builder, job, 0, len(job.missing))
    sheet = builder.node("Likeness_DrawSheet", job=job, after=done)
    study, _ = write_partial(job)
    return io.NodeOutput(sheet.out(0), sheet.out(1), ui=ui_output(study), expand=builder.finalize())
