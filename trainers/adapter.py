"""Adapter files: atomic writing, inspection, and loading under any naming convention.

Safetensors with kohya's tensor names and the metadata of `adapter_metadata`.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import ldm_names
from .adapter_names import (
    LORA_ADAPTER_METADATA_KEY,
    declared_alphas,
    guess_family,
    kohya_name,
    to_kohya_keys,
)
from .base_file import PICKLE_SUFFIXES, detect_prediction, identify
from .errors import AdapterError, OutOfSpace, OutputExists, RecipeError
from .files import atomic_file, is_disk_full
from .recipe import Recipe, recipe_from_json
from .safetensors_file import MEGABYTE, Header, Shapes, read_header, serialise

if TYPE_CHECKING:
    from torch import Tensor

RECIPE_KEY = "likeness.recipe"
STRIPPED_KEY = "likeness.recipe_without_prompts"
SCORES_KEY = "likeness.scores"  # a JSON object of numbers by name
PREDICTION_KEY = "modelspec.prediction_type"  # "epsilon" or "v"
TRIGGER_PHRASE_KEY = "modelspec.trigger_phrase"
OUTPUT_NAME_KEY = "ss_output_name"

Prediction = Literal["epsilon", "v_prediction"]


# Writing.


def save_adapter(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: Literal["fp16", "fp32"] = "fp32",
) -> None:
    """Writes a LoRA (`lora.export`) with its metadata, atomically.

    `dtype` is that of the low-rank matrices; alpha and DoRA's scale, which multiplies the whole
    weight, stay fp32. Equal arguments give identical bytes. The file is read back and compared
    before it gets its name. Raises AdapterError for non-finite values, OutputExists if `path`
    exists with other content, OutOfSpace.
    """
    stored = _cast_tensors(tensors, dtype)
    content = serialise(stored, metadata)
    if path.exists():
        if path.read_bytes() == content:
            return
        raise OutputExists(f"{path} is already another adapter. Move it or choose another name.")
    _write(path, content, stored)


def _cast_tensors(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    import torch

    kind = {"fp16": torch.float16, "fp32": torch.float32}[dtype]
    stored = {}
    for name, tensor in tensors.items():
        wanted = kind if name.endswith(".weight") else torch.float32
        stored[name] = tensor.detach().to("cpu", wanted).contiguous()
        if not stored[name].isfinite().all():
            raise AdapterError(
                f"{name} has non-finite values in {dtype}, so nothing was saved. "
                "Training diverged: try a lower learning rate."
            )
    return stored


def _write(path: Path, content: bytes, stored: Mapping[str, Tensor]) -> None:
    need = len(content)
    try:
        free = shutil.disk_usage(path.parent).free
        if free < need + MEGABYTE:
            raise OSError(errno.ENOSPC, "No space left")
        with atomic_file(
            path, exclusive=True, check=partial(_verify_written, tensors=stored)
        ) as file:
            file.write(content)
    except OSError as error:
        if not is_disk_full(error):
            raise AdapterError(f"{path} cannot be written: {error.strerror or error}.") from error
        raise OutOfSpace(
            f"Not enough space in {path.parent}: the adapter takes {need / MEGABYTE:.1f} MB, and "
            f"{free / MEGABYTE:.1f} MB are free. Free some space and run again: training resumes "
            "from its last saved training state."
        ) from error


def _verify_written(path: Path, tensors: Mapping[str, Tensor]) -> None:
    import torch
    from safetensors.torch import load_file

    found = load_file(path)
    if found.keys() != tensors.keys() or not all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in tensors.items()
    ):
        raise AdapterError(
            f"The file read back from {path.parent} differs from what was written. Check the disk."
        )


# Reading.


@dataclass(frozen=True)
class AdapterInfo:
    """What a file's header states; None for what it does not. `loss` is the run's `final_loss`.

    `family` is a guess from names and shapes, in words; `tensors` is their number. `prediction` is
    the prediction type of the UNet it was trained on.
    """

    kind: Literal["lora", "dora", "checkpoint", "unknown"]
    rank: int | None
    alpha: float | None
    tensors: int
    recipe: Recipe | None
    steps: int | None
    loss: float | None
    family: str
    metadata: dict[str, str]
    prediction: Prediction | None = None

    @property
    def clip_skip(self) -> int:
        """Clip skip used in training; 1 if not stated."""
        skipped = self._recipe_field("text_encoder", "clip_skip")
        return skipped if type(skipped) is int and 1 <= skipped <= 12 else 1

    @property
    def trigger_phrase(self) -> str:
        """Words that stand for the subject in prompts; "" if not stated."""
        return self.metadata.get(TRIGGER_PHRASE_KEY, "").strip()

    @property
    def base(self) -> str | None:
        """Digest of the base it was trained on; None if not stated."""
        digest = self._recipe_field("base", "digest")
        return digest if isinstance(digest, str) else None

    def _recipe_field(self, part: str, field: str) -> Any:
        """A field of the embedded recipe, which may have its prompts stripped."""
        try:
            recipe = json.loads(
                self.metadata.get(RECIPE_KEY) or self.metadata.get(STRIPPED_KEY) or "{}"
            )
            return recipe[part][field]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None


def read_metadata(path: Path) -> AdapterInfo:
    """Inspects a file by its header alone, in bounded memory. Raises AdapterError."""
    header = _header(path)
    metadata = header.metadata
    names = {kohya_name(name): shape for name, shape in header.shapes.items()}
    ranks = [shape[0] for n, shape in names.items() if n.endswith(".lora_down.weight") and shape]
    kind: Literal["lora", "dora", "checkpoint", "unknown"] = "unknown"
    if ranks:
        scaled = any(n.endswith((".dora_scale", ".lora_magnitude_vector")) for n in names)
        kind = "dora" if scaled else "lora"
    elif any(name.startswith(ldm_names.UNET) for name in names):
        kind = "checkpoint"
    steps = _parse_number(metadata.get("likeness.steps", metadata.get("ss_steps")))
    return AdapterInfo(
        kind=kind,
        rank=Counter(ranks).most_common(1)[0][0] if ranks else None,
        alpha=_parse_number(metadata.get("ss_network_alpha")),
        tensors=len(names),
        recipe=_recipe_or_none(metadata),
        steps=None if steps is None else int(steps),
        loss=_parse_number(metadata.get("likeness.loss")),
        family=guess_family(header.shapes),
        metadata=metadata,
        prediction=_prediction(header),
    )


def _prediction(header: Header) -> Prediction | None:
    """Other programs are trusted only for v: some write epsilon without knowing it."""
    stated = header.metadata.get(PREDICTION_KEY)
    if stated in ("v", "v_prediction") or detect_prediction(header.shapes) == "v_prediction":
        return "v_prediction"
    return "epsilon" if stated == "epsilon" and "likeness.version" in header.metadata else None


def _header(path: Path) -> Header:
    try:
        return read_header(path)
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise AdapterError(
            f"{path} {reason}. An adapter is a complete .safetensors file; copy or download it "
            "again."
        ) from None


def _parse_number(text: str | None) -> float | None:
    try:
        value = float((text or "")[:40])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _recipe_or_none(metadata: Mapping[str, str]) -> Recipe | None:
    try:
        return recipe_from_json(metadata[RECIPE_KEY]) if RECIPE_KEY in metadata else None
    except RecipeError:
        return None


def clip_skip_of(path: Path) -> int:
    """Clip skip of a file; 1 for a folder. Raises AdapterError for a damaged file."""
    return 1 if path.is_dir() else read_metadata(path).clip_skip


def trained_prediction(path: Path) -> Prediction | None:
    """Prediction type of the UNet a file or folder was trained on; None if not stated.

    Raises AdapterError for a damaged file, BaseModelError for a damaged folder.
    """
    if path.suffix.lower() in PICKLE_SUFFIXES:  # has no metadata
        return None
    if not path.is_dir():
        return read_metadata(path).prediction
    found = identify(path).prediction
    return found if found == "v_prediction" else None  # epsilon is also the default


def recipe_of(path: Path) -> Recipe:
    """Recipe embedded in a file. Raises AdapterError if it has none."""
    metadata = _header(path).metadata
    if STRIPPED_KEY in metadata:
        raise AdapterError(f"The recipe in {path} is incomplete: its prompts were stripped.")
    if RECIPE_KEY not in metadata:
        raise AdapterError(f"{path} has no recipe: it was not trained with Likeness.")
    try:
        return recipe_from_json(metadata[RECIPE_KEY])
    except RecipeError as error:
        raise AdapterError(f"The recipe in {path} cannot be read. {error}") from None


def describe(info: AdapterInfo) -> str:
    """One line without any of the file's own text: kind, rank, alpha, tensors, steps, loss."""
    parts = [info.family.replace("LoRA", "DoRA") if info.kind == "dora" else info.family]
    parts += [f"rank {info.rank}"] if info.rank is not None else []
    parts += [f"alpha {info.alpha:g}"] if info.alpha is not None else []
    parts += [f"{info.tensors} tensors"]
    parts += [f"{info.steps} steps"] if info.steps is not None else []
    parts += [f"loss {info.loss:.4g}"] if info.loss is not None else []
    parts += [f"recipe {info.recipe.label()}"] if info.recipe is not None else []
    return ", ".join(parts)


def load_adapter(path: Path) -> dict[str, Tensor]:
    """Loads a LoRA file of any naming convention, renamed by `to_kohya_keys`. Raises AdapterError.

    Adds ``.alpha`` tensors if a diffusers or PEFT file has alpha in its metadata (PEFT: in
    ``adapter_config.json`` beside it). LyCORIS types pass through.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = _header(path).metadata
    try:
        with _naming(path):
            tensors = to_kohya_keys(load_file(path))
    except SafetensorError as error:
        raise AdapterError(f"{path} is damaged: {error}. Copy or download it again.") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    alphas = _alphas(path, shapes, metadata)
    return tensors | {name: torch.tensor(value) for name, value in alphas.items()}


def read_lora_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that `load_adapter` loads, by its header. Raises AdapterError."""
    header = _header(path)
    with _naming(path):
        shapes = to_kohya_keys(header.shapes)
    return shapes | dict.fromkeys(_alphas(path, shapes, header.metadata), ())


def _alphas(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, float]:
    if path.name == "adapter_model.safetensors":
        metadata = _peft_configuration(path.with_name("adapter_config.json")) | dict(metadata)
    with _naming(path):
        return declared_alphas(shapes, metadata)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's path before an AdapterError that has none."""
    try:
        yield
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from None


def _peft_configuration(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            return {LORA_ADAPTER_METADATA_KEY: file.read(MEGABYTE)}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise AdapterError(f"{path} cannot be read: {reason}. Copy it again.") from None
