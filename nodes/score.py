"""Likeness_Score: scores a comparison and writes its report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import __version__
from ..comparison.encoder_files import encoder_path, first_clip, first_dino, first_text
from ..comparison.encoders import (
    ChooseDevice,
    EncoderFiles,
    EncoderFinder,
    OnProgress,
    choose_cpu,
    find_encoders,
)
from ..comparison.export import strip_paths_in_json
from ..comparison.references import photographs
from ..comparison.report import Report, Reproduction, format_workflow, write_report
from ..comparison.row_adapters import find_row_adapters
from ..comparison.score_table import format_cell_scores, format_scores
from ..comparison.scores import Scores, score
from ..comparison.sheet import write_sheet
from ..comparison.study import REPORT_FILE, SCORES_FILE, draw_sheet, keep_newest
from ..trainers.files import write_atomic
from ..trainers.memory import is_out_of_memory, release_memory
from ..trainers.places import cache_folder, runs_folder
from .contact_sheet import workflow_metadata
from .host import (
    Progress,
    encoder_device,
    interrupted,
    io,
    is_metadata_enabled,
    model_files,
    model_names,
    model_path,
    output_folder,
    send_event,
    tokenizer_folder,
    training_device,
)
from .node_state import publish, workflow_id
from .paths import file_fingerprint
from .sockets import StudyType, SubjectType
from .study import Study
from .values import SubjectSource
from .widgets import bool_widget, with_search_aliases

StatusCallback = Callable[[str], None]

AUTO, NONE = "auto", "none"
IMAGE_ENCODERS, TEXT_ENCODERS = "clip_vision", "text_encoders"  # ComfyUI's folders
EVENT = "likeness.scoring"
CPU_FALLBACK = "Not enough GPU memory for an encoder: scores are computed on the CPU."


class Score(io.ComfyNode):
    """Scores each image and each row with the installed encoders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_Score",
            display_name="Score (Likeness)",
            category="Likeness",
            description=(
                "Scores a comparison: how well the images match the subject and their prompts, and "
                "how the class has changed. Writes the scores and a single-file HTML report "
                "next to the sheet. Scores whose encoder is not installed are skipped and listed."
            ),
            inputs=[
                StudyType.Input("study", tooltip="From Contact Sheet."),
                _encoder_input(
                    "clip_image", IMAGE_ENCODERS, "CLIP's image encoder, from models/clip_vision."
                ),
                _encoder_input(
                    "clip_text", TEXT_ENCODERS, "CLIP's text encoder, from models/text_encoders."
                ),
                _encoder_input("dinov2", IMAGE_ENCODERS, "A DINOv2 folder in models/clip_vision."),
                bool_widget(
                    "face",
                    "Compare faces; needs the packages dlib-bin and face_recognition_models.",
                    default=True,
                ),
                SubjectType.Input(
                    "subject",
                    optional=True,
                    tooltip="The photographs that the rows were trained on.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    id="scored",
                    display_name="sheet",
                    tooltip="The sheet with scores below each image.",
                ),
                io.String.Output(id="table", display_name="table", tooltip="Scores of each row."),
                io.String.Output(
                    id="report",
                    display_name="report",
                    tooltip="The report's path in the output folder.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            not_idempotent=True,
        )
        return with_search_aliases(schema, "evaluate", "clip score", "similarity", "metrics")

    @classmethod
    def validate_inputs(
        cls,
        clip_image: str | None = None,
        clip_text: str | None = None,
        dinov2: str | None = None,
    ) -> bool:
        """Checks that the chosen files exist, before the queue starts. Raises LikenessError."""
        for kind, name in (
            (IMAGE_ENCODERS, clip_image),
            (TEXT_ENCODERS, clip_text),
            (IMAGE_ENCODERS, dinov2),
        ):
            if name not in (None, AUTO, NONE):
                model_path(kind, str(name))
        return True

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Changes when an encoder's file is added, replaced or removed."""
        files = [path for kind in (IMAGE_ENCODERS, TEXT_ENCODERS) for path in model_files(kind)]
        return repr([(str(path), file_fingerprint(path)) for path in files])

    @classmethod
    def execute(
        cls,
        study: Study,
        clip_image: str,
        clip_text: str,
        dinov2: str,
        face: bool,
        subject: SubjectSource | None = None,
    ) -> io.NodeOutput:
        """(IMAGE, table, report). Raises ComparisonError for a file that cannot be used."""
        progress = Progress(cls.hidden.unique_id)
        set_status = _status_callback(cls.hidden, progress)
        files = encoder_files(clip_image, clip_text, dinov2, face)
        photos = photographs(subject.folder, subject.spec) if subject else []
        scores = scored(study, files, photos, set_status, progress.show)
        table, report = format_scores(study.plan, scores), study.folder / REPORT_FILE
        write_atomic(study.folder / SCORES_FILE, scores.to_json(study.plan))
        write_report(report, build_report(study, scores, cls.hidden))
        sheet, path = write_scored_sheet(study, scores)
        where = report.relative_to(output_folder()).as_posix()
        set_status(f"The report is output/{where}\n{table}")
        publish(cls.hidden, "scores", study.folder.name)
        image = torch.from_numpy(np.array(sheet)).float().div_(255)[None]
        return io.NodeOutput(image, table, where, ui=ui_output(path, table))


def _encoder_input(id: str, kind: str, tooltip: str) -> io.Input:
    return io.Combo.Input(
        id,
        options=[AUTO, NONE, *model_names(kind)],
        default=AUTO,
        tooltip=f"{tooltip} 'auto': the first that fits.",
    )


def encoder_files(clip_image: str, clip_text: str, dinov2: str, face: bool) -> EncoderFiles:
    """The files that the widgets select. Raises LikenessError for a missing one."""
    images = model_files(IMAGE_ENCODERS)
    image = _resolve_encoder(clip_image, IMAGE_ENCODERS, first_clip(images))
    text = None
    if image is not None and clip_text != NONE:
        text = _resolve_encoder(
            clip_text, TEXT_ENCODERS, first_text(model_files(TEXT_ENCODERS), image)
        )
    return EncoderFiles(
        clip_image=image,
        clip_text=text,
        dino=_resolve_encoder(dinov2, IMAGE_ENCODERS, first_dino(images)),
        tokenizers=(tokenizer_folder(),),
        face=face,
        cache=cache_folder(output_folder()),
    )


def _resolve_encoder(name: str, kind: str, found: Path | None) -> Path | None:
    if name in (AUTO, NONE):
        return found if name == AUTO else None
    return encoder_path(model_path(kind, name))


def _status_callback(hidden: Any, progress: Progress) -> StatusCallback:
    """A callback that shows a line on the node and in its panel.

    The panel needs its own event: core's does not name the workflow.
    """
    to = {"node": str(hidden.unique_id), "workflow": workflow_id(hidden)}

    def set_status(line: str) -> None:
        progress.set_status(line)
        send_event(EVENT, {**to, "line": line.partition("\n")[0]})

    return set_status


def scored(
    study: Study,
    files: EncoderFiles,
    photos: list[Path],
    set_status: StatusCallback,
    show: OnProgress,
) -> Scores:
    """The scores, computed on the CPU if an encoder runs out of GPU memory.

    Checks for cancellation after every few images. Raises ComparisonError.
    """
    try:
        return _scored(study, files, photos, set_status, show, encoder_device, [])
    except Exception as error:
        if training_device() == "cpu" or not is_out_of_memory(error):
            raise
    release_memory()  # outside the except block, where the error no longer holds it
    set_status(CPU_FALLBACK)
    return _scored(study, files, photos, set_status, show, choose_cpu, [CPU_FALLBACK])


def _scored(
    study: Study,
    files: EncoderFiles,
    photos: list[Path],
    set_status: StatusCallback,
    show: OnProgress,
    device: ChooseDevice,
    notes: list[str],
) -> Scores:
    set_status("Loading encoders")
    encoders, missing = find_encoders(files, judges(), device, study.plan.image)

    def on_encoder(name: str) -> None:
        interrupted()
        set_status(f"Scoring with {name}")

    def on_progress(done: int, total: int) -> None:
        interrupted()
        show(done, total)

    return score(
        study.plan,
        study.images,
        photos,
        encoders,
        notes=[*notes, *missing],
        cache=cache_folder(output_folder()),
        on_encoder=on_encoder,
        on_progress=on_progress,
    )


def judges() -> list[EncoderFinder]:
    """The finder of the drawn world's judge, if demo/ is installed."""
    try:
        from ..demo.encoder import find_judge
    except ImportError:
        return []
    return [find_judge]


def build_report(study: Study, scores: Scores, hidden: Any) -> Report:
    """The report, with the workflow that reproduces it unless metadata is disabled."""
    output = output_folder()
    row_adapters = find_row_adapters(study.plan, runs_folder(output), cache_folder(output))
    reproduction = [_reproduction(workflow_metadata(hidden))] if is_metadata_enabled() else []
    return Report(
        study.folder.name,
        study.plan,
        study.images,
        row_adapters,
        scores,
        reproduction,
        __version__,
    )


def _reproduction(text: dict[str, Any]) -> Reproduction:
    """The browser's workflow, or the queued prompt where a program sent only that."""
    if text.get("workflow") is not None:
        clean = format_workflow(strip_paths_in_json(text["workflow"]))
        return Reproduction("In ComfyUI: drop this file onto the canvas", clean, "workflow.json")
    clean = format_workflow(strip_paths_in_json({"prompt": text["prompt"]}))
    return Reproduction("Through ComfyUI's API: POST this to /prompt", clean, "prompt.json")


def write_scored_sheet(study: Study, scores: Scores) -> tuple[Image.Image, Path]:
    """The sheet with a line of scores below each image, and its file."""
    notes = [format_cell_scores(scores, place) for place in range(len(study.images))]
    sheet = draw_sheet(study.plan, study.images, notes if any(notes) else None)
    digest = hashlib.sha256(f"{study.sheet.name} {notes}".encode()).hexdigest()
    path = study.folder / f"scored-{digest[:12]}.png"
    write_sheet(path, sheet)
    keep_newest(study.folder, "scored-*.png")
    return sheet, path


def ui_output(path: Path, table: str) -> dict[str, Any]:
    """The node's UI output: the sheet and the table."""
    where = path.relative_to(output_folder())
    image = {"filename": where.name, "subfolder": where.parent.as_posix(), "type": "output"}
    return {"images": [image], "text": [table]}
