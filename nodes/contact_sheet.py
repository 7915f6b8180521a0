"""Likeness_ContactSheet: draws a Matrix cell by cell with the user's own nodes, and shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ..comparison.errors import ComparisonError
from ..comparison.matrix import Plan
from ..trainers.digests import content_digest
from ..trainers.memory import keep_apart
from ..trainers.places import cache_folder
from ..trainers.recipe import check_name
from .board import pin
from .cells import CellGraph, digests_of, read_cell_graph
from .control import check_controls
from .draw_cells import WRITER, Job, draw_cells, files_gone, finished, shown, written
from .host import (
    ADVANCED,
    Progress,
    files_named,
    graph_builder,
    io,
    model_path,
    output_folder,
    with_metadata,
)
from .matrix import ADAPTER_STRENGTH, CellMatrix
from .sockets import MatrixType, StudyType
from .study import cells_folder, chosen_cells, study_folder
from .viewer import CellNews
from .widgets import known_as

SHEET = "Likeness_ContactSheet"
_drawn_again = ""  # when cells were last asked for again


class ContactSheet(io.ComfyNode):
    """Runs the nodes between a Matrix and itself once for each cell that is not yet drawn."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_ContactSheet",
            display_name="Contact Sheet (Likeness)",
            category="Likeness",
            description=(
                "Draws every cell of a Matrix, one after another, with the nodes that you wired "
                "between the two, and shows them side by side. Finished cells are kept as files: "
                "cancel, restart or change a prompt, and only what is missing is drawn. The "
                "sheet's PNG carries the workflow."
            ),
            inputs=[
                io.Image.Input(
                    "picture",
                    lazy=True,
                    raw_link=True,
                    tooltip="The picture of one cell, as VAE Decode gives it.",
                ),
                MatrixType.Input("matrix", tooltip="The Matrix that the picture depends on."),
                io.String.Input(
                    "name",
                    default="comparison",
                    tooltip="Folder of the results in output/likeness/comparisons. What is in it "
                    "is replaced by the next comparison of that name.",
                ),
                io.Combo.Input(
                    "single_pictures",
                    options=["png", "jpg"],
                    default="png",
                    tooltip="How the single pictures are saved beside the sheet.",
                ),
                io.String.Input(
                    "redraw",
                    multiline=True,
                    default="",
                    extra_dict=ADVANCED,
                    tooltip="Cells to draw again at each queue, one a line: 'row / column', a row "
                    "or a column; * stands for any letters.",
                ),
            ],
            outputs=[
                io.Image.Output(id="sheet", display_name="sheet"),
                StudyType.Output(
                    id="study", display_name="study", tooltip="The plan and its pictures."
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
        return known_as(schema, "xy plot", "xyz plot", "grid", "image grid", "compare")

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Whether `name` can be a folder's name, before the queue starts."""
        try:
            check_name(name) if name is not None else None
        except ValueError as error:
            return f"name: {error}"
        return True

    @classmethod
    def fingerprint_inputs(
        cls, name: str | None = None, redraw: str | None = None, **_: Any
    ) -> str:
        """Changes at each queue while there are cells to draw again, or files are gone.

        None stands for what comes by a wire.
        """
        global _drawn_again
        if redraw is None or redraw.strip() or files_gone(name):
            _drawn_again = str(time.time_ns())
        return _drawn_again  # not "" afterwards: what ComfyUI keeps from before is of old cells

    @classmethod
    def check_lazy_status(cls, **_: Any) -> list[str]:
        """The picture is never asked for: its nodes are copied."""
        return []

    @classmethod
    def execute(
        cls, picture: Any, matrix: CellMatrix, name: str, single_pictures: str, redraw: str
    ) -> io.NodeOutput:
        """(IMAGE, study). Raises ComparisonError if the picture does not come from the Matrix."""
        try:
            check_name(name)
        except ValueError as error:
            raise ComparisonError(f"{name!r} cannot be the comparison's name: {error}.") from None
        check_alone(cls.hidden, name)
        job = make_job(cls.hidden, picture, matrix, name, single_pictures, redraw)
        output = expanded(job) if job.missing else finished(job)
        pin(cls.hidden, "comparison", name)
        return output


def check_alone(hidden: Any, name: str) -> None:
    """Raises ComparisonError where another Contact Sheet that is queued has the same name."""
    for node_id, node in (hidden.prompt or {}).items():
        other = node.get("inputs", {}).get("name")
        ours = node.get("class_type") == SHEET and str(node_id) != str(hidden.unique_id)
        if ours and isinstance(other, str) and other.lower() == name.lower():
            raise ComparisonError(
                f"Two Contact Sheets are called {name!r}, and would replace each other's files: "
                "give one of them another name."
            )


def make_job(
    hidden: Any, picture: Any, matrix: CellMatrix, name: str, suffix: str, redraw: str
) -> Job:
    """What is to be drawn: the cells without a file, and those to draw again."""
    Progress(hidden.unique_id).say("Looking for finished cells")
    WRITER.wait()  # a cancelled queue may have left a cell on its way,
    keep_apart(False)  # and this as it is for the next variant's weights
    output = output_folder()
    graph = read_cell_graph(hidden.dynprompt.get_node, picture, matrix.node_id)
    check_controls(graph.nodes, model_path)
    check_strengths(graph, matrix.plan)
    values = tuple(matrix.values(cell) for cell in matrix.plan.cells())
    digests = digests_of(graph, values, file_stamps(cache_folder(output)))
    files = tuple(cells_folder(output) / f"{digest}.png" for digest in digests)
    again = chosen_cells(matrix.plan, redraw)
    missing = {
        path: index
        for index, path in reversed(list(enumerate(files)))
        if index in again or not path.is_file()
    }
    return Job(
        matrix=matrix,
        graph=graph,
        values=values,
        files=files,
        missing=tuple(sorted(missing.values())),
        copies=None,
        node_id=str(hidden.unique_id),
        name=name,
        suffix=suffix,
        text=workflow_text(hidden) if with_metadata() else {},
        started=time.time(),
        news=CellNews(hidden, study_folder(output, name), matrix.plan, files),
    )


def check_strengths(graph: CellGraph, plan: Plan) -> None:
    """Raises ComparisonError where rows have strengths, and the cell's nodes do not use them."""
    strong = [variant.name for variant in plan.variants if variant.strength_unet != 1]
    if strong and ADAPTER_STRENGTH not in graph.uses[graph.picture[0]]:
        raise ComparisonError(
            f"The row {strong[0]} has a strength, and nothing uses it: wire the Matrix' "
            "adapter_strength to strength_model and strength_clip of Load Adapter."
        )


def workflow_text(hidden: Any) -> dict[str, Any]:
    """ComfyUI's text chunks: the prompt as it was queued, and the browser's workflow."""
    kept = ("class_type", "inputs", "_meta")  # ComfyUI adds fingerprints, which need not be JSON
    prompt = {
        node_id: {part: node[part] for part in kept if part in node}
        for node_id, node in hidden.prompt.items()
    }
    return {"prompt": prompt, **(hidden.extra_pnginfo or {})}


def file_stamps(known: Path) -> Callable[[str], list[str]]:
    """Digests of the content of the models and input files that a text names.

    `known` is the folder where digests are remembered.
    """

    @cache
    def stamp(text: str) -> list[str]:
        return [content_digest(path, known) for path in files_named(text)]

    return stamp


def expanded(job: Job) -> io.NodeOutput:
    """The graph that draws what is missing, and then the sheet.

    Until then the sheet has empty frames. It keeps its file's name, by which ComfyUI shows it
    again when nothing has changed.
    """
    builder = graph_builder()
    done = draw_cells(builder, job, 0, len(job.missing))
    sheet = builder.node("Likeness_DrawSheet", job=job, after=done)
    study, _ = written(job)
    return io.NodeOutput(sheet.out(0), sheet.out(1), ui=shown(study), expand=builder.finalize())
