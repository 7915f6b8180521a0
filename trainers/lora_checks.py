"""Checks of the matrices in a LoRA file, by their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from .adapter_names import MAGNITUDE
from .errors import AdapterError

Shape = tuple[int, ...]


def check_embeddings(name: str, lora: Mapping[str, object]) -> None:
    """Raises AdapterError for a file of OneTrainer that also has embeddings."""
    if any(key.startswith("bundle_emb.") for key in lora):
        raise AdapterError(
            f"{name} also holds embeddings (OneTrainer's bundle_emb), which are not loaded from a "
            "LoRA: save them as files of their own into models/embeddings."
        )


def check_alpha(name: str, module: str, parts: Mapping[str, Shape]) -> None:
    """Raises AdapterError for an alpha of several numbers; arguments as `check_matrices`."""
    if prod(parts.get("alpha", ())) != 1:
        raise AdapterError(f"{name} is damaged: alpha of {module} is not one number.")


def check_matrices(
    name: str, module: str, parts: Mapping[str, Shape], weight: Shape | None, family: str
) -> None:
    """Raises AdapterError unless a module's matrices, and DoRA's scale, fit its weight.

    Args:
        name: the file's, for the message.
        module: its name in the file.
        parts: shapes by what follows the module's name, such as ``lora_up.weight``.
        weight: the shape (out, in, …) of the module's weight; None if it is not known.
        family: the file's, in words.
    """
    up, down = (parts.get(f"lora_{part}.weight") for part in ("up", "down"))
    if up is None or down is None:
        raise AdapterError(f"{name} is incomplete: {module} has only one of its two matrices.")
    if len(up) < 2 or len(down) < 2 or up[1] != down[0] or not up[1] or prod(up[2:]) != 1:
        raise AdapterError(
            f"{name} is damaged: the matrices of {module} do not match: {up} and {down}."
        )
    if weight is None:
        return
    if len(weight) < 2 or up[0] != weight[0] or prod(down[1:]) != prod(weight[1:]):
        raise AdapterError(
            f"{name} does not fit this model: it expects {module} to have {prod(down[1:])} inputs "
            f"and {up[0]} outputs, but its weight has the shape {weight}. Detected type: "
            f"{family}."
        )
    _check_dora(name, module, parts, weight)


def _check_dora(name: str, module: str, parts: Mapping[str, Shape], weight: Shape) -> None:
    if MAGNITUDE in parts and prod(parts[MAGNITUDE]) != weight[0]:
        raise AdapterError(
            f"{name} is damaged: the DoRA magnitude of {module} has {prod(parts[MAGNITUDE])} "
            f"values, but the layer has {weight[0]} outputs."
        )
    fitting = dora_scale_shapes(weight)
    if parts.get("dora_scale", fitting[0]) not in fitting:
        raise AdapterError(
            f"{name} is damaged: the DoRA scale of {module} has the shape {parts['dora_scale']}, "
            f"not {fitting[0]} or {fitting[1]}."
        )


def dora_scale_shapes(weight: Shape) -> tuple[Shape, Shape]:
    """Shapes of a ``dora_scale`` of a weight (out, in, …): of its outputs, of its inputs."""
    ones = (1,) * (len(weight) - 2)
    return (weight[0], 1, *ones), (1, weight[1], *ones)
