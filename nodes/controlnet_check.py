"""Checks from file headers that the ControlNets of a graph fit its base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..comparison.errors import ComparisonError
from ..trainers.base_file import cross_attention_dim, read_shapes
from ..trainers.errors import LikenessError
from ..trainers.safetensors_file import Shapes

# Core's loaders: node class -> (widget, model folder).
BASE_LOADERS = {"CheckpointLoaderSimple": ("ckpt_name", "checkpoints")}
CONTROLNET_LOADERS = {"ControlNetLoader": ("control_net_name", "controlnet")}

FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}

# Layer prefixes of ControlNets that have no cross-attention.
_TRANSFORMER_PREFIXES = {
    "double_blocks.": "FLUX",
    "joint_blocks.": "SD 3",
    "transformer_blocks.": "SD 3",
}


def check_controlnets(
    nodes: Mapping[str, Mapping[str, Any]], path_of: Callable[[str, str], Path]
) -> None:
    """Raises ComparisonError if a ControlNet is of another family than the only base model.

    Connected names and files other than .safetensors are skipped: core's own nodes report those.

    Args:
        nodes: ComfyUI's ``{"class_type": str, "inputs": {...}}`` by id.
        path_of: finds a file by model folder and name; raises LikenessError.
    """
    bases, controls = (
        _read_headers(nodes, kinds, path_of) for kinds in (BASE_LOADERS, CONTROLNET_LOADERS)
    )
    if len(bases) != 1:
        return
    (base,) = bases.items()
    for control in controls.items():
        _check(base, control)


def _read_headers(
    nodes: Mapping[str, Mapping[str, Any]],
    kinds: Mapping[str, tuple[str, str]],
    path_of: Callable[[str, str], Path],
) -> dict[str, Shapes]:
    """Tensor names and shapes of each file that nodes of these classes load, by file name."""
    found: dict[str, Shapes] = {}
    for node in nodes.values():
        widget, folder = kinds.get(node["class_type"], ("", ""))
        name = node["inputs"].get(widget)
        if not isinstance(name, str) or not name.lower().endswith(".safetensors"):
            continue
        try:
            found[name] = read_shapes(path_of(folder, name))
        except LikenessError:
            continue
    return found


def _check(base: tuple[str, Shapes], control: tuple[str, Shapes]) -> None:
    (base_name, base_shapes), (name, shapes) = base, control
    wanted, width = cross_attention_dim(base_shapes), cross_attention_dim(shapes)
    other = next(
        (f for part, f in _TRANSFORMER_PREFIXES.items() if _has_prefix(shapes, part)), None
    )
    if other is None and (wanted is None or width is None or wanted == width):
        return
    raise ComparisonError(
        f"The ControlNet {name} is for {other or _family(width)}, but the base model {base_name} "
        f"is {_family(wanted)}: choose a ControlNet made for this base."
    )


def _has_prefix(shapes: Shapes, part: str) -> bool:
    return any(name.startswith(part) for name in shapes)


def _family(width: int | None) -> str:
    return FAMILIES.get(width or 0, f"a model with a text embedding width of {width}")
