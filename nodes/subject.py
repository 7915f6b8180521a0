"""Likeness_Subject: the subject, from a folder of photographs."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..trainers.errors import LikenessError, RecipeError
from ..trainers.recipe import Subject as SubjectSpec
from ..trainers.recipe import format_validation_error
from ..trainers.subject import PhotoSet, load_pixels, read_subject
from . import miniature
from .host import ADVANCED, Progress, executing_node, input_folder, io
from .paths import folder_fingerprint, image_folders, photo_folder
from .recipe_builder import check_packages
from .run_reporter import on_read
from .sockets import SubjectType
from .values import SubjectSource
from .widgets import bool_widget, float_widget, int_widget, with_search_aliases


class Subject(io.ComfyNode):
    """Reads, checks and crops the photographs; reports which were refused and why."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_Subject",
            display_name="Subject (Likeness)",
            category="Likeness",
            description=(
                "The photographs to train on: 10 to 20 of one subject, with different poses, "
                "distances and places. Drop them on the node, or choose a folder inside ComfyUI's "
                "input folder. Shows the crops exactly as they are trained."
            ),
            inputs=[
                *(*subject_inputs(), *crop_inputs(), *dataset_inputs(), *fitting_inputs()),
                *tag_inputs(),
            ],
            outputs=subject_outputs(),
        )
        return with_search_aliases(schema, "dataset", "training images", "photos", "captions")

    @classmethod
    def validate_inputs(
        cls,
        folder: str | None = None,
        token: str | None = None,
        class_word: str | None = None,
        prompt: str | None = None,
        crop: str | None = None,
    ) -> bool:
        """Cheap checks before the queue starts; connected values are checked when they arrive.

        Raises LikenessError.
        """
        given = {"token": token, "class_word": class_word, "prompt": prompt, "crop": crop}
        if folder is not None:
            find_folder(folder)
        given = {key: value for key, value in given.items() if value is not None}
        check_packages(subject=subject_spec(given).model_dump(mode="json"))
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **_: Any) -> str:
        """Changes when the folder's files change, so that new photographs are read."""
        try:
            return folder_fingerprint(find_folder(folder or ""))
        except LikenessError as error:
            return str(error)

    @classmethod
    def execute(cls, folder: str, **options: Any) -> io.NodeOutput:
        """(subject, crops, report, token, class word).

        Raises SubjectError when no photograph can be used.
        """
        source = SubjectSource(subject_spec(options), find_folder(folder))
        progress = Progress(executing_node() or None)
        photos = read_subject(source.folder, source.spec, on_read=on_read(progress))
        progress.set_status(f"{len(photos.photos)} photographs")
        spec = source.spec
        return io.NodeOutput(source, crops(photos), report(photos), spec.token, spec.class_word)


def subject_inputs() -> list[io.Input]:
    """Where the photographs are, and the words for their subject."""
    return [
        io.Combo.Input(
            "folder",
            options=folder_names(),
            tooltip="A folder inside ComfyUI's input folder, or the bundled miniature's images. "
            "Press R to refresh the list.",
        ),
        io.String.Input(
            "token",
            default="sks",
            tooltip="A rare word that stands for the subject in prompts, such as sks or ohwx.",
        ),
        io.String.Input(
            "class_word", default="man", tooltip="What the subject is: man, woman, dog, …"
        ),
        io.String.Input(
            "prompt",
            default="a photo of {token} {class}",
            tooltip="The prompt of every photograph; {token} and {class} are filled in. "
            "If all are portraits: a photo of {token} {class} face.",
        ),
    ]


def crop_inputs() -> list[io.Input]:
    """How each photograph is cropped."""
    return [
        int_widget(
            "resolution",
            512,
            64,
            2048,
            "Side length in pixels. Stable Diffusion 1.5 was trained at 512; 256 is faster.",
            step=8,
        ),
        io.Combo.Input(
            "crop",
            options=["center", "face", "top"],
            default="center",
            tooltip="Square crop: from the centre, around the largest face (needs the package "
            "dlib-bin), or, of upright photographs, from the top.",
        ),
        bool_widget(
            "buckets",
            "Aspect-ratio buckets: keep each photograph's shape, at an area of resolution squared, "
            "instead of cropping squares.",
            advanced=True,
        ),
    ]


def dataset_inputs() -> list[io.Input]:
    """How the photographs are used."""
    return [
        bool_widget(
            "captions",
            "Use a photograph's text file of the same name, .txt or else .caption, as its prompt; "
            "it should contain the token or {token}. Or put {caption} where its text goes in the "
            "prompt above.",
            advanced=True,
        ),
        bool_widget(
            "flip",
            "Also train on horizontal flips. Off for people: faces are not symmetric.",
            advanced=True,
        ),
        int_widget(
            "holdout",
            0,
            0,
            1000,
            "Photographs held out of training, for the validation loss.",
            advanced=True,
        ),
    ]


def fitting_inputs() -> list[io.Input]:
    """Closer crops, masks, and photographs that are too small."""
    return [
        float_widget(
            "face_share",
            0.0,
            0.0,
            1.0,
            0.05,
            "With crop 'face': crop closer where the face takes up less than this share of the "
            "crop's height, but not below the resolution; 0.35 suits full-body photographs. 0: "
            "crop as large as possible.",
            advanced=True,
        ),
        io.Combo.Input(
            "mask",
            options=["none", "alpha", "file"],
            default="none",
            optional=True,
            extra_dict=ADVANCED,
            tooltip="Where the subject is. alpha: where the photograph is not transparent; file: "
            "where <name>-masklabel.png beside it is white. The rest counts less, so that "
            "backgrounds are not learned with the subject.",
        ),
        float_widget(
            "unmasked_weight",
            0.1,
            0.0,
            1.0,
            0.05,
            "Loss weight outside the mask; the subject has 1.",
            advanced=True,
        ),
        float_widget(
            "enlarge",
            1.0,
            1.0,
            4.0,
            0.1,
            "Photographs smaller than the resolution are enlarged by at most this factor; 1: "
            "skipped. 1.5 does little harm if most are large enough.",
            advanced=True,
        ),
    ]


def tag_inputs() -> list[io.Input]:
    """The order of tags in captions."""
    return [
        bool_widget(
            "shuffle_tags",
            "With captions of tags: change the order of what commas separate, so that the first "
            "tags do not count most (shuffle_caption in kohya's scripts).",
            advanced=True,
        ),
        int_widget(
            "keep_tags",
            1,
            0,
            1000,
            "With shuffle_tags: so many leading tags of a prompt keep their places, and so does "
            "the one with the token.",
            advanced=True,
        ),
    ]


def subject_outputs() -> list[io.Output]:
    """The subject, its crops, the report and its words."""
    return [
        SubjectType.Output(id="subject", display_name="subject"),
        io.Image.Output(
            id="crops",
            display_name="crops",
            is_output_list=True,
            tooltip="The photographs as they are trained: one batch per size.",
        ),
        io.String.Output(
            id="report",
            display_name="report",
            tooltip="What is used, and what was skipped and why.",
        ),
        io.String.Output(
            id="token",
            display_name="token",
            tooltip="For Prompt Set's token, so that you type it only once.",
        ),
        io.String.Output(
            id="class_word", display_name="class_word", tooltip="For Prompt Set's class_word."
        ),
    ]


def folder_names() -> list[str]:
    """The choices of the folder widget."""
    bundled = [miniature.SUBJECT] if miniature.subject_folder() else []
    return [*image_folders(input_folder()), *bundled]


def find_folder(name: str) -> Path:
    """The folder called `name`. Raises LikenessError if it is missing or has no files."""
    bundled = miniature.subject_folder()
    return bundled if bundled and name == miniature.SUBJECT else photo_folder(input_folder(), name)


def subject_spec(fields: dict[str, Any]) -> SubjectSpec:
    """The recipe's subject. Raises RecipeError, which names each wrong field."""
    try:
        return SubjectSpec(**fields)
    except ValidationError as error:
        raise RecipeError(format_validation_error(error, "subject")) from None


def crops(photos: PhotoSet) -> list[torch.Tensor]:
    """IMAGE batches (N, H, W, 3) in [0, 1], one per crop size."""
    by_size = sorted(photos.photos, key=lambda photo: photo.size)
    return [
        torch.stack([torch.tensor(load_pixels(photo)) for photo in group]).float() / 255
        for _, group in groupby(by_size, key=lambda photo: photo.size)
    ]


def report(photos: PhotoSet) -> str:
    """What is used, skipped and noted, one per line."""
    lines = [f"{len(photos.photos)} photographs:"]
    for photo in photos.photos:
        left, top, right, bottom = photo.box
        caption = f", caption: {photo.caption}" if photo.caption else ""
        lines.append(
            f"- {photo.path.name}: {photo.width}×{photo.height}, cropped to "
            f"{right - left}×{bottom - top} at ({left}, {top}), trained at "
            f"{photo.size[0]}×{photo.size[1]}{caption}"
        )
    if photos.refused:
        lines += [f"{len(photos.refused)} skipped:"]
        lines += [f"- {refused.name}: {refused.reason}" for refused in photos.refused]
    return "\n".join([*lines, *photos.notes])
