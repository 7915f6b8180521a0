"""Likeness_ClassImages: pictures of the class, so that the model keeps what it knew."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ..trainers.errors import LikenessError, RecipeError
from ..trainers.recipe import Prior, format_validation_error
from .host import ADVANCED, input_folder, io
from .paths import folder_fingerprint, photo_folder, picture_folders
from .sockets import PriorType
from .values import PriorSource
from .widgets import float_widget, int_widget, seed, with_search_aliases

DRAWN = "draw with the base model"
TEACHER = "none: what the base predicts"


class ClassImages(io.ComfyNode):
    """Prior preservation: without it the whole class takes on the subject's looks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_ClassImages",
            display_name="Class Images (Likeness)",
            category="Likeness",
            description=(
                "Prior preservation: class images are trained beside the photographs, so that the "
                "model learns the subject and not that every man looks like it. The base model "
                "draws them once, at the first training, and every later run shares them."
            ),
            inputs=[*prior_inputs(), *sampling_inputs()],
            outputs=[PriorType.Output(id="class_images", display_name="class_images")],
        )
        return with_search_aliases(schema, "regularization", "reg images", "prior preservation")

    @classmethod
    def validate_inputs(cls, prompt: str | None = None, source: str | None = None) -> bool:
        """Cheap checks before the queue starts; connected values are checked when they arrive.

        Raises LikenessError.
        """
        own = source not in (None, DRAWN, TEACHER)
        if prompt is not None:
            prior_spec({"prompt": prompt})
        if own:
            photo_folder(input_folder(), str(source))
        return True

    @classmethod
    def fingerprint_inputs(cls, source: str | None = None, **_: Any) -> str:
        """Changes when the files of one's own folder do."""
        if source in (None, DRAWN, TEACHER):
            return ""
        try:
            return folder_fingerprint(photo_folder(input_folder(), str(source)))
        except LikenessError as error:
            return str(error)

    @classmethod
    def execute(cls, source: str, **options: Any) -> io.NodeOutput:
        """The class images' description; nothing is drawn here."""
        if source == TEACHER:
            return io.NodeOutput(PriorSource(prior_spec({**options, "source": "teacher"}), None))
        if source == DRAWN:
            return io.NodeOutput(PriorSource(prior_spec(options), None))
        # Which of several prompts a picture of one's own shows is not known.
        prompt = str(options["prompt"]).strip().partition("\n")[0]
        folder = photo_folder(input_folder(), source)
        return io.NodeOutput(PriorSource(prior_spec({**options, "prompt": prompt}), folder))


def prior_inputs() -> list[io.Input]:
    """What the class images are, and how much they count."""
    return [
        io.String.Input(
            "prompt",
            multiline=True,
            default="a photo of {class}",
            tooltip="What the class images show; {class} is the subject's class word. Best is "
            "the photographs' own prompt without the token; where that names a framing, with "
            "one in any framing below it: prompts, one a line, are shown in turn. With a folder "
            "of your own the first line counts.",
        ),
        int_widget(
            "count",
            200,
            1,
            100_000,
            "How many the set has; a training draws those that it shows. Fewer start sooner; "
            "200 to 500 are usual.",
        ),
        float_widget(
            "weight", 1.0, 0.0, 100.0, 0.05, "Weight of their loss beside the photographs'."
        ),
        io.Combo.Input(
            "source",
            options=[DRAWN, TEACHER, *picture_folders(input_folder())],
            default=DRAWN,
            tooltip="Drawn by the base model; none, where what the base predicts on the "
            "photographs is kept instead; or a folder of your own in ComfyUI's input "
            "folder.",
        ),
    ]


def sampling_inputs() -> list[io.Input]:
    """How they are drawn."""
    return [
        io.String.Input(
            "negative",
            default="",
            optional=True,
            extra_dict=ADVANCED,
            tooltip="Negative prompt of the drawing.",
        ),
        int_widget("steps", 25, 1, 1000, "Sampling steps of a class image.", advanced=True),
        float_widget(
            "guidance",
            7.5,
            0.0,
            100.0,
            0.1,
            "Guidance scale of the drawing.",
            advanced=True,
        ),
        seed("seed", "Seed of the drawing. Another seed draws another set.", advanced=True),
    ]


def prior_spec(fields: dict[str, Any]) -> Prior:
    """A recipe's prior. Raises RecipeError that names each wrong field."""
    try:
        return Prior(**fields)
    except ValidationError as error:
        raise RecipeError(format_validation_error(error, "class images")) from None
