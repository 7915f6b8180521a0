"""Applies a LoRA or a full fine-tune to a MODEL and a CLIP; any mismatch is an error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from ..trainers import ldm_names
from ..trainers.adapter import load_adapter
from ..trainers.adapter_names import (
    MAGNITUDE,
    group_by_module,
    guess_family,
    is_read_by_comfyui,
    list_names,
    split_name,
)
from ..trainers.base_file import detect_other_family, is_full_fine_tune
from ..trainers.diffusers_folder import read_folder
from ..trainers.dora import to_comfyui
from ..trainers.errors import AdapterError
from ..trainers.lora_checks import Shape, check_alpha, check_embeddings, check_matrices
from . import host

UNET_PREFIX = "diffusion_model."

# Present in some checkpoints only; never trained.
IGNORED_SUFFIXES = ("position_ids", "logit_scale", "text_projection", "text_projection.weight")


def apply_adapter(
    model: Any, clip: Any, path: Path, strengths: tuple[float, float]
) -> tuple[Any, Any]:
    """(MODEL, CLIP) with the adapter at (model, clip) `strengths`; the inputs are not changed.

    `path` is a file or a diffusers folder. Raises LikenessError if it is damaged or any of its
    tensors does not fit this model.
    """
    if is_full_fine_tune(path):
        return _apply_full_fine_tune(model, clip, path, strengths)
    return _add_lora(model, clip, path, strengths)


def with_clip_skip(clip: Any, skipped: int) -> Any:
    """A clone of a CLIP that stops at the text encoder's layer `skipped` from the end (1: last)."""
    clip = clip.clone()
    clip.clip_layer(-skipped)
    return clip


def checkpoint_path(model: Any) -> Path | None:
    """The file that core's loader read a MODEL from; None if unknown."""
    try:
        file = Path(model.cached_patcher_init[1][0])
    except (AttributeError, TypeError, LookupError):
        return None
    return file if file.is_file() else None


def _add_lora(model: Any, clip: Any, path: Path, strengths: tuple[float, float]) -> tuple[Any, Any]:
    lora = load_adapter(path)
    modules = host.lora_modules(model, clip)
    shapes = {**host.model_shapes(model), **host.clip_shapes(clip)}
    check_lora(path.name, _shapes(lora), modules, shapes)
    if any(name.endswith(MAGNITUDE) for name in lora):
        weights = _unpatched_weights(model, clip)
        lora = to_comfyui(lora, lambda module: weights[modules[module]]())
    patches = host.lora_patches(lora, modules)
    on_model, on_clip = strengths
    return (
        host.with_patches(model, patches, on_model) if on_model else model,
        host.with_patches(clip, patches, on_clip) if on_clip else clip,
    )


def _unpatched_weights(model: Any, clip: Any) -> dict[str, Callable[[], Any]]:
    """Loads weights by the names of `host.model_shapes` and `host.clip_shapes`."""
    patches = {**model.get_key_patches(), **clip.patcher.get_key_patches()}
    stored = {name: found[0] for name, found in patches.items()}  # (weight, what decodes it)
    return {name: partial(decode, weight) for name, (weight, decode) in stored.items()}


def check_lora(
    name: str, lora: dict[str, Shape], modules: dict[str, Any], weights: dict[str, Shape]
) -> None:
    """Raises AdapterError unless every tensor belongs to a known module and has its shape.

    Args:
        name: the file's, for the message.
        lora: shapes by kohya's or ComfyUI's name, ``<module>.lora_down.weight`` and so on.
        modules: known modules and the weight each patches.
        weights: shapes of the model's weights.
    """
    check_embeddings(name, lora)
    unknown_keys = [key for key in lora if not _is_known_key(key, modules)]
    if unknown_keys or not lora:
        raise AdapterError(
            f"{name} does not fit this model: {len(unknown_keys)} of its {len(lora)} tensors "
            f"match nothing in it ({list_names(unknown_keys)}). Detected type: "
            f"{guess_family(lora)}. Choose a base model of that family, or another adapter."
        )
    family = guess_family(lora)
    for module, parts in sorted(group_by_module(lora).items()):
        weight = modules[module]
        bias = weights.get(f"{str(weight).removesuffix('.weight')}.bias")
        _check_matrices(name, module, parts, weights.get(weight), family)
        of_weight = dict.fromkeys(("diff", "w_norm", "set_weight"), weights.get(weight))
        _check_differences(name, module, parts, {**of_weight, "diff_b": bias, "b_norm": bias})


def _check_matrices(
    name: str, module: str, parts: dict[str, Shape], weight: Shape | None, family: str
) -> None:
    """As `check_lora`, for one module: core only logs shapes that do not match and skips them."""
    check_alpha(name, module, parts)
    up, down, middle = (parts.get(f"lora_{part}.weight") for part in ("up", "down", "mid"))
    if MAGNITUDE not in parts and (middle is not None or (up is None and down is None)):
        _check_lycoris(name, module, parts, weight, family)
    else:
        check_matrices(name, module, parts, weight, family)


_GLORA = {"a1.weight", "a2.weight", "b1.weight", "b2.weight"}
# Tensors by the start of their name, and what must be there with them: core fails without.
_TOGETHER = {
    "lora_mid": {"lora_up.weight", "lora_down.weight"},
    "hada_w": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    "hada_t": {"hada_t1", "hada_t2"},
    "lokr_w1_": {"lokr_w1_a", "lokr_w1_b"},
    "lokr_w2_": {"lokr_w2_a", "lokr_w2_b"},
    **dict.fromkeys(_GLORA, _GLORA),
    "b_norm": {"w_norm"},  # ignored without
}


def _check_lycoris(
    name: str, module: str, parts: dict[str, Shape], weight: Shape | None, family: str
) -> None:
    """As `_check_matrices`, for other kinds: their tensors, and the number of values they make."""
    for some, needed in _TOGETHER.items():
        if any(part.startswith(some) for part in parts) and not needed <= parts.keys():
            raise AdapterError(
                f"{name} is incomplete: {module} lacks {', '.join(sorted(needed - parts.keys()))}."
            )
    if any(len(parts[part]) < 2 for part in parts if part.startswith(("hada_", "lokr_"))):
        raise AdapterError(f"{name} is damaged: a factor of {module} is not a matrix.")
    made = None
    if "hada_w1_a" in parts and "hada_w1_b" in parts and "hada_t1" not in parts:
        made = parts["hada_w1_a"][0] * prod(parts["hada_w1_b"][1:])
    elif "lokr_t2" not in parts:
        made = prod(_lokr_size(parts, factor) for factor in ("w1", "w2"))
    if weight is not None and made and made != prod(weight):
        raise AdapterError(
            f"{name} does not fit this model: it makes {made:,} values for {module}, which has "
            f"{prod(weight):,}. Detected type: {family}."
        )


def _lokr_size(parts: dict[str, Shape], factor: str) -> int:
    """The number of values of a LoKr's factor; 0 if it has none."""
    left, right = parts.get(f"lokr_{factor}_a"), parts.get(f"lokr_{factor}_b")
    if left and right:
        return left[0] * prod(right[1:])
    whole = parts.get(f"lokr_{factor}")
    return prod(whole) if whole else 0


def _check_differences(
    name: str, module: str, parts: dict[str, Shape], weights: dict[str, Shape | None]
) -> None:
    """As `check_lora`, for the plain differences of a module's weight and bias."""
    for ending, weight in weights.items():
        if ending in parts and parts[ending] != weight:
            raise AdapterError(
                f"{name} does not fit this model: the difference {module}.{ending} has the shape "
                f"{parts[ending]}, what it is added to {weight}."
            )


def _is_known_key(key: str, modules: dict[str, Any]) -> bool:
    module, part = split_name(key)
    return module in modules and (part == MAGNITUDE or is_read_by_comfyui(part))


def _apply_full_fine_tune(
    model: Any, clip: Any, path: Path, strengths: tuple[float, float]
) -> tuple[Any, Any]:
    """base + strength * (tuned - base): exactly the fine-tune at 1, unchanged at 0."""
    tensors = read_folder(path) if path.is_dir() else host.read_tensors(path)
    unet = {
        key.removeprefix("model."): value
        for key, value in tensors.items()
        if key.startswith(ldm_names.UNET)
    }
    family = detect_other_family(_shapes(tensors)) or ""
    base = _with_prefix(UNET_PREFIX, host.model_shapes(model))
    check_checkpoint(path.name, "UNet", _shapes(unet), base, family)
    text = host.text_encoder_tensors(model, tensors)
    check_checkpoint(path.name, "text encoder", _shapes(text), host.clip_shapes(clip), family)
    if any(strengths) and _is_patched(model, clip):
        raise AdapterError(
            f"{path.name} is a full fine-tune and would replace the weights that earlier LoRAs "
            "changed: load it first, directly after the checkpoint, and the LoRAs after it."
        )
    return _blend(model, unet, strengths[0]), _blend(clip, text, strengths[1])


def _is_patched(model: Any, clip: Any) -> bool:
    """Whether a LoRA or another patch is already on the model or on its text encoder."""
    return bool(model.patches or clip.patcher.patches)


def _blend(target: Any, tuned: dict[str, Any], strength: float) -> Any:
    """Blends by weighted patches: at strength 1 the base has weight 0, so nothing is rounded."""
    if not strength:
        return target
    return host.with_patches(
        target, {key: (value,) for key, value in tuned.items()}, strength, 1.0 - strength
    )


def check_checkpoint(
    name: str, what: str, tuned: dict[str, Shape], base: dict[str, Shape], family: str = ""
) -> None:
    """Raises AdapterError unless the tuned and the base weights have the same names and shapes.

    `family` is the file's family if it is not SD 1.x, for the message.
    """
    differ = [
        key
        for key in {**tuned, **base}
        if tuned.get(key) != base.get(key) and not key.endswith(IGNORED_SUFFIXES)
    ]
    if differ:
        raise AdapterError(
            f"{name} does not fit this model: {len(differ)} weights of the {what} differ in name "
            f"or shape ({list_names(differ)}). {f'It is {family}. ' if family else ''}Load it "
            "onto the base it was trained from, or open it with Load Checkpoint."
        )


def _shapes(tensors: dict[str, Any]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _with_prefix(prefix: str, shapes: dict[str, Shape]) -> dict[str, Shape]:
    return {key: shape for key, shape in shapes.items() if key.startswith(prefix)}
