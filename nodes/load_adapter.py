"""Likeness_LoadAdapter: any result of training, on the model wire."""

from __future__ import annotations

from pathlib import Path

from ..trainers.errors import AdapterError, LikenessError
from .adapters import apply_adapter
from .host import io, model_names, model_path
from .names import file_fingerprint
from .rows import BASE

KINDS = ("loras", "checkpoints")


def _readable(name: str) -> bool:
    return name.lower().endswith(".safetensors")


def find_adapter(name: str) -> Path:
    """The file of a LoRA's or a checkpoint's name. Raises AdapterError."""
    kinds = [kind for kind in KINDS if name in model_names(kind)]
    if not kinds:
        raise AdapterError(
            f"There is no LoRA or checkpoint {name!r}: press R in the browser to list new files, "
            "and choose one, or connect a train node's adapter output."
        )
    if len(kinds) > 1:
        raise AdapterError(
            f"{name!r} is both a LoRA and a checkpoint: rename one of the two files."
        )
    if not _readable(name):
        raise AdapterError(
            f"{name!r} is not a .safetensors file: convert it, then choose that one."
        )
    return model_path(kinds[0], name)


class LoadAdapter(io.ComfyNode):
    """Puts a LoRA or a full fine-tune on a base model, each with its own strength."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = sorted({name for kind in KINDS for name in model_names(kind) if _readable(name)})
        strength = {"default": 1.0, "min": -2.0, "max": 2.0, "step": 0.05}
        return io.Schema(
            node_id="Likeness_LoadAdapter",
            display_name="Load Adapter (Likeness)",
            category="Likeness",
            description=(
                "Loads a LoRA or a DreamBooth checkpoint onto the base model it was trained from. "
                "A checkpoint is blended with the base, so that one graph serves every variant. "
                "A file that does not fit is an error, never a silent half."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The base model."),
                io.Clip.Input("clip", tooltip="The base model's text encoder."),
                io.Combo.Input(
                    "adapter",
                    options=[BASE, *names],
                    tooltip="A LoRA or a full checkpoint; or connect a train node's adapter.",
                ),
                io.Float.Input(
                    "strength_model",
                    **strength,
                    tooltip="How much of what the UNet learned. 0: the base, 1: as trained.",
                ),
                io.Float.Input(
                    "strength_clip",
                    **strength,
                    tooltip="The same for the text encoder.",
                ),
            ],
            outputs=[
                io.Model.Output(id="model_out", display_name="model"),
                io.Clip.Output(id="clip_out", display_name="clip"),
                io.String.Output(
                    id="label", display_name="label", tooltip="The adapter's name and strength."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, adapter: str | None = None) -> bool | str:
        """Whether the chosen file is there; a connected name is looked up when it arrives."""
        try:
            if adapter is not None and adapter != BASE:
                find_adapter(adapter)
        except LikenessError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None = None, **_: object) -> str:
        """Changes when the file is replaced."""
        try:
            return file_fingerprint(find_adapter(adapter)) if adapter else ""
        except LikenessError:
            return ""

    @classmethod
    def execute(
        cls, model: object, clip: object, adapter: str, strength_model: float, strength_clip: float
    ) -> io.NodeOutput:
        """(MODEL, CLIP, label). Raises AdapterError for a file that does not fit."""
        if adapter == BASE:
            return io.NodeOutput(model, clip, "base")
        path = find_adapter(str(adapter))
        strengths = (strength_model, strength_clip)
        model, clip = apply_adapter(model, clip, path, strengths)
        return io.NodeOutput(model, clip, _label(path.stem, *strengths))


def _label(name: str, on_model: float, on_clip: float) -> str:
    if on_model == on_clip == 1:
        return name
    return (
        f"{name} ({on_model:g})" if on_model == on_clip else f"{name} ({on_model:g}, {on_clip:g})"
    )
