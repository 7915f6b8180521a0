"""Likeness_SavePhotographs: images of other nodes as photographs for Subject."""

from __future__ import annotations

import hashlib
import io as bytes_io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..trainers.errors import LikenessError
from ..trainers.files import write_atomic
from ..trainers.masks import MASK_SUFFIX
from ..trainers.photo_files import LEFT_OUT
from .cells import Node
from .host import input_folder, io
from .paths import folder_fingerprint, normalised_name, safe_join
from .static_plan import current_prompt
from .widgets import with_search_aliases

NODE_ID = "Likeness_SavePhotographs"
# Files of an earlier run of the node; the user's own are never removed.
_WRITTEN = re.compile(r"(image-[0-9a-f]{16})(\.png|\.txt|-masklabel\.png)")


class SavePhotographs(io.ComfyNode):
    """Writes images, their captions and masks to a folder that Subject reads."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_SavePhotographs",
            display_name="Save Photographs (Likeness)",
            category="Likeness",
            description=(
                "Saves images of other nodes, such as upscalers, background removers or taggers, "
                "to a folder inside ComfyUI's input folder, for Subject."
            ),
            is_input_list=True,
            is_output_node=True,
            inputs=photograph_inputs(),
            outputs=[
                io.AnyType.Output(
                    id="folder", display_name="folder", tooltip="For the input folder of Subject."
                )
            ],
        )
        return with_search_aliases(schema, "dataset", "save images", "training images", "captions")

    @classmethod
    def validate_inputs(cls, folder: list[str] | None = None) -> bool:
        """Checks the folder's name before the queue starts. Raises LikenessError."""
        if folder is not None:
            check_unique_folder(current_prompt(), safe_join(input_folder(), folder[0]))
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: list[str] | str | None = None, **_: Any) -> str:
        """Changes when a file of the folder does, or one is left out: Subject then reads it anew.

        Its own `folder` is connected, which ComfyUI does not tell it.
        """
        name = folder[0] if isinstance(folder, list) else folder
        try:
            path = safe_join(input_folder(), name or "")
        except LikenessError as error:
            return str(error)
        return folder_fingerprint(path) + folder_fingerprint(path / LEFT_OUT)

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        folder: list[str],
        captions: list[str] | None = None,
        masks: list[torch.Tensor] | None = None,
    ) -> io.NodeOutput:
        """The folder's name. Raises LikenessError, also if the numbers of inputs differ."""
        photographs = flatten(images)
        count = len(photographs)
        if count == 0:
            raise LikenessError("There are no images to save; those of the folder are kept.")
        save_photographs(
            safe_join(input_folder(), folder[0]),
            photographs,
            matched(captions, count, "captions") if captions else None,
            matched(flatten(masks), count, "masks") if masks else None,
        )
        return io.NodeOutput(folder[0])


def check_unique_folder(prompt: Mapping[str, Node], folder: Path) -> None:
    """Raises LikenessError if several nodes of the prompt save to a folder: each removes what it
    did not write itself.
    """
    names = [
        node["inputs"].get("folder")
        for node in prompt.values()
        if node.get("class_type") == NODE_ID and "inputs" in node
    ]
    if sum(_is_folder(name, folder) for name in names) > 1:
        raise LikenessError(
            f"Two nodes Save Photographs save to {folder.name!r} and would remove each other's "
            "images: give one of them another folder, or join the images before one node."
        )


def _is_folder(name: Any, folder: Path) -> bool:
    try:
        path = safe_join(input_folder(), name) if isinstance(name, str) else None
    except LikenessError:
        return False
    return path is not None and normalised_name(str(path)) == normalised_name(str(folder))


def photograph_inputs() -> list[io.Input]:
    """The images, where they are saved, and what belongs to each."""
    return [
        io.Image.Input("images", tooltip="A batch, or a list of images of any sizes."),
        io.String.Input(
            "folder",
            default="prepared",
            tooltip="A folder inside ComfyUI's input folder; it is made if needed. Images that "
            "this node saved there before are removed, other files are kept.",
        ),
        io.String.Input(
            "captions",
            optional=True,
            force_input=True,
            tooltip="A list with one text for each image, as taggers give, or one for all. Turn "
            "on captions in Subject to use them.",
        ),
        io.Mask.Input(
            "masks",
            optional=True,
            tooltip="One for each image, of its size: 1 (white) where the subject is. Set mask to "
            "file in Subject to use them. Load Image's mask is the opposite: invert it.",
        ),
    ]


def flatten(batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """The single images (H, W, C), or masks (H, W), of a list of batches."""
    return [image for batch in batches for image in batch]


def matched(values: Sequence[Any], count: int, what: str) -> list[Any]:
    """`count` values: one for each image, or one that is repeated. Raises LikenessError."""
    if len(values) not in (1, count):
        raise LikenessError(
            f"There are {count} images, but {len(values)} {what}: connect one for each image, or "
            "one for all."
        )
    return list(values) if len(values) == count else list(values) * count


def save_photographs(
    folder: Path,
    images: Sequence[torch.Tensor],
    captions: Sequence[str] | None,
    masks: Sequence[torch.Tensor] | None,
) -> None:
    """Writes PNG files named by their pixels, ``<name>.txt`` and ``<name>-masklabel.png`` too.

    Equal images become one; those that the user left out are not written again. Earlier images of
    this function that are not among them are removed with their captions and masks. Without
    `captions` or `masks`, those that are there are kept: others may have written them.

    Args:
        images: (H, W, 3 or 4) in [0, 1].
        captions: "" for none.
        masks: (H, W) in [0, 1].
    Raises LikenessError for a mask of another size than its image, and if the folder cannot be
    written.
    """
    files: dict[str, bytes | None] = {}  # None: none of this name
    for number, image in enumerate(images):
        pixels = to_pixels(image)
        stem = f"image-{_digest(pixels)}"
        if (folder / LEFT_OUT / f"{stem}.png").exists():
            continue
        files[f"{stem}.png"] = encode_png(pixels)
        if captions is not None:
            caption = captions[number].strip()
            files[f"{stem}.txt"] = caption.encode() if caption else None
        if masks is not None:
            _check_size(masks[number], image)
            files[stem + MASK_SUFFIX] = encode_png(to_pixels(masks[number]))
    try:
        _replace_files(folder, files)
    except OSError as error:
        raise LikenessError(f"The folder {folder} cannot be written: {error}") from None


def _digest(pixels: np.ndarray[Any, Any]) -> str:
    """16 hex digits of the pixels: another encoder's PNG keeps its name."""
    content = repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _check_size(mask: torch.Tensor, image: torch.Tensor) -> None:
    if mask.shape != image.shape[:2]:
        sizes = [f"{width} x {height}" for height, width in (mask.shape, image.shape[:2])]
        raise LikenessError(f"A mask is {sizes[0]} pixels, its image {sizes[1]}: resize the mask.")


def _replace_files(folder: Path, files: dict[str, bytes | None]) -> None:
    """Writes those that differ, and removes those of earlier images; others keep their times."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = folder / name
        if data is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or (not _is_image(name) and path.read_bytes() != data):
            write_atomic(path, data)
    for path in folder.iterdir():
        written = _WRITTEN.fullmatch(path.name)
        if written and f"{written[1]}.png" not in files:
            path.unlink()


def _is_image(name: str) -> bool:
    """Whether a file's name says what is in it."""
    return name.endswith(".png") and not name.endswith(MASK_SUFFIX)


def to_pixels(image: torch.Tensor) -> np.ndarray[Any, Any]:
    """The 8-bit values of an image or a mask in [0, 1]; others are clipped, NaN is 0."""
    values = np.nan_to_num(image.float().cpu().numpy())
    pixels: np.ndarray[Any, Any] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def encode_png(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of pixels (H, W, 3 or 4) or (H, W)."""
    data = bytes_io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=4)
    return data.getvalue()
