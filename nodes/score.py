"""Likeness_Score: numbers beside the pictures of a comparison, and its report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import __version__
from ..comparison.compare import photographs
from ..comparison.encoder_files import first_clip, first_dino, first_text, place_of
from ..comparison.encoders import Device, EncoderFiles, Finder, OnPart, find_encoders, on_cpu
from ..comparison.export import without_folders_within
from ..comparison.report import Again, Report, readable, write_report
from ..comparison.score_table import note_of, score_text
from ..comparison.scores import Scores, score
from ..comparison.sheet import write_sheet
from ..comparison.study import REPORT_FILE, SCORES_FILE, draw_sheet, keep_newest
from ..comparison.taught import taught_of
from ..trainers.files import write_whole
from ..trainers.memory import is_out_of_memory, release_memory
from ..trainers.places import cache_folder, runs_folder
from .board import pin, workflow_of
from .contact_sheet import workflow_text
from .host import (
    Progress,
    encoder_device,
    interrupted,
    io,
    model_names,
    model_path,
    models_there,
    output_folder,
    tell_browser,
    tokenizer_folder,
    training_device,
    with_metadata,
)
from .names import file_fingerprint
from .sockets import StudyType, SubjectType
from .study import Study
from .values import SubjectSource
from .widgets import known_as, switch

Say = Callable[[str], None]

AUTO, NONE = "auto", "none"
IMAGES, TEXTS = "clip_vision", "text_encoders"  # ComfyUI's folders
EVENT = "likeness.scoring"
ON_CPU = "The GPU has no room for an encoder: the CPU computes the scores."


class Score(io.ComfyNode):
    """Scores each picture and each row by the encoders that are installed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_Score",
            display_name="Score (Likeness)",
            category="Likeness",
            description=(
                "Measures a comparison: how much the pictures show the subject and their prompts, "
                "and what became of the class. Writes the numbers and a report, one HTML file, "
                "beside the sheet. What no encoder is installed for is left out, and said."
            ),
            inputs=[
                StudyType.Input("study", tooltip="From Contact Sheet."),
                _choice("clip_image", IMAGES, "CLIP's image encoder, of models/clip_vision."),
                _choice("clip_text", TEXTS, "CLIP's text encoder, of models/text_encoders."),
                _choice("dinov2", IMAGES, "A folder of DINOv2, in models/clip_vision."),
                switch(
                    "face",
                    "Compare faces (needs the packages dlib-bin and face_recognition_models).",
                    default=True,
                ),
                SubjectType.Input(
                    "subject",
                    optional=True,
                    tooltip="The photographs that the rows learned from.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    id="scored", display_name="sheet", tooltip="The sheet with a line of scores."
                ),
                io.String.Output(id="table", display_name="table", tooltip="Scores of each row."),
                io.String.Output(
                    id="report", display_name="report", tooltip="Its place in the output folder."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            not_idempotent=True,
        )
        return known_as(schema, "evaluate", "clip score", "similarity", "metrics")

    @classmethod
    def validate_inputs(
        cls,
        clip_image: str | None = None,
        clip_text: str | None = None,
        dinov2: str | None = None,
    ) -> bool:
        """Whether the chosen files are there, before the queue starts. Raises LikenessError."""
        for kind, name in ((IMAGES, clip_image), (TEXTS, clip_text), (IMAGES, dinov2)):
            if name not in (None, AUTO, NONE):
                model_path(kind, str(name))
        return True

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Changes when an encoder's file is added, replaced or taken away."""
        files = [path for kind in (IMAGES, TEXTS) for path in models_there(kind)]
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
        say = _sayer(cls.hidden, progress)
        files = encoder_files(clip_image, clip_text, dinov2, face)
        photos = photographs(subject.folder if subject else None)
        scores = scored(study, files, photos, say, progress.show)
        table, report = score_text(study.plan, scores), study.folder / REPORT_FILE
        write_whole(study.folder / SCORES_FILE, scores.to_json(study.plan))
        write_report(report, report_of(study, scores, cls.hidden))
        sheet, path = scored_sheet(study, scores)
        where = report.relative_to(output_folder()).as_posix()
        say(f"The report is output/{where}\n{table}")
        pin(cls.hidden, "scores", study.folder.name)
        image = torch.from_numpy(np.array(sheet)).float().div_(255)[None]
        return io.NodeOutput(image, table, where, ui=shown(path, table))


def _choice(id: str, kind: str, tooltip: str) -> io.Input:
    return io.Combo.Input(
        id,
        options=[AUTO, NONE, *model_names(kind)],
        default=AUTO,
        tooltip=f"{tooltip} 'auto' takes the first that fits.",
    )


def encoder_files(clip_image: str, clip_text: str, dinov2: str, face: bool) -> EncoderFiles:
    """The files that the widgets mean. Raises LikenessError for one that is gone."""
    images = models_there(IMAGES)
    image = _chosen(clip_image, IMAGES, first_clip(images))
    text = None
    if image is not None and clip_text != NONE:
        text = _chosen(clip_text, TEXTS, first_text(models_there(TEXTS), image))
    return EncoderFiles(
        clip_image=image,
        clip_text=text,
        dino=_chosen(dinov2, IMAGES, first_dino(images)),
        tokenizers=(tokenizer_folder(),),
        face=face,
        cache=cache_folder(output_folder()),
    )


def _chosen(name: str, kind: str, found: Path | None) -> Path | None:
    if name in (AUTO, NONE):
        return found if name == AUTO else None
    return place_of(model_path(kind, name))


def _sayer(hidden: Any, progress: Progress) -> Say:
    """Says a line on the node, and to its panel; core does not say of which workflow it is."""
    to = {"node": str(hidden.unique_id), "workflow": workflow_of(hidden)}

    def say(line: str) -> None:
        progress.say(line)
        tell_browser(EVENT, {**to, "line": line.partition("\n")[0]})

    return say


def scored(study: Study, files: EncoderFiles, photos: list[Path], say: Say, show: OnPart) -> Scores:
    """The scores; an encoder that the GPU has no room for computes on the CPU.

    ComfyUI's cancel is heeded after every few pictures. Raises ComparisonError.
    """
    try:
        return _scored(study, files, photos, say, show, encoder_device, [])
    except Exception as error:
        if training_device() == "cpu" or not is_out_of_memory(error):
            raise
    release_memory()  # here, where the error holds it no longer
    say(ON_CPU)
    return _scored(study, files, photos, say, show, on_cpu, [ON_CPU])


def _scored(
    study: Study,
    files: EncoderFiles,
    photos: list[Path],
    say: Say,
    show: OnPart,
    device: Device,
    notes: list[str],
) -> Scores:
    say("Loading encoders")
    encoders, missing = find_encoders(files, judges(), device, study.plan.picture)

    def begin(name: str) -> None:
        interrupted()
        say(f"Scoring with {name}")

    def go_on(done: int, total: int) -> None:
        interrupted()
        show(done, total)

    return score(
        study.plan,
        study.pictures,
        photos,
        encoders,
        notes=[*notes, *missing],
        cache=cache_folder(output_folder()),
        on_encoder=begin,
        on_part=go_on,
    )


def judges() -> list[Finder]:
    """The judge of the drawn world, where demo/ is installed."""
    try:
        from ..demo.encoder import find_judge
    except ImportError:
        return []
    return [find_judge]


def report_of(study: Study, scores: Scores, hidden: Any) -> Report:
    """The report, with the workflow that drew it."""
    output = output_folder()
    taught = taught_of(study.plan, runs_folder(output), cache_folder(output))
    again = [_again(workflow_text(hidden))] if with_metadata() else []
    return Report(study.folder.name, study.plan, study.pictures, taught, scores, again, __version__)


def _again(text: dict[str, Any]) -> Again:
    """The browser's workflow; the queued prompt where a program sent that alone."""
    if text.get("workflow") is not None:
        clean = readable(without_folders_within(text["workflow"]))
        return Again("In ComfyUI: drop this file onto the canvas", clean, "workflow.json")
    clean = readable(without_folders_within({"prompt": text["prompt"]}))
    return Again("Through ComfyUI's API: POST this to /prompt", clean, "prompt.json")


def scored_sheet(study: Study, scores: Scores) -> tuple[Image.Image, Path]:
    """The sheet with a line of scores below each picture, and its file."""
    notes = [note_of(scores, place) for place in range(len(study.pictures))]
    sheet = draw_sheet(study.plan, study.pictures, notes if any(notes) else None)
    digest = hashlib.sha256(f"{study.sheet.name} {notes}".encode()).hexdigest()
    path = study.folder / f"scored-{digest[:12]}.png"
    write_sheet(path, sheet)
    keep_newest(study.folder, "scored-*.png")
    return sheet, path


def shown(path: Path, table: str) -> dict[str, Any]:
    """What ComfyUI shows on the node."""
    where = path.relative_to(output_folder())
    image = {"filename": where.name, "subfolder": where.parent.as_posix(), "type": "output"}
    return {"images": [image], "text": [table]}
