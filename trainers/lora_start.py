"""The LoRA file that a training starts from (`method.start`): what it must be, and its matrices.

At step 0 the model equals the base with the file merged at strength 1. What the recipe does not
train is refused instead of merged: the result is one LoRA file, which could not hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .adapter import load_adapter, read_lora_shapes
from .adapter_names import (
    LYCORIS_FAMILIES,
    MAGNITUDE,
    UNUSED_MODULE,
    group_by_module,
    guess_family,
    list_names,
)
from .digests import content_digest
from .errors import AdapterError, RecipeError
from .lora_checks import (
    Shape,
    check_alpha,
    check_embeddings,
    check_matrices,
    dora_scale_shapes,
)
from .lora_layers import TARGETS, Layer, read_layers
from .places import Places
from .recipe import LoRA, Recipe
from .safetensors_file import Shapes

if TYPE_CHECKING:
    from torch import Tensor

Modules = Mapping[str, Mapping[str, Shape]]  # shapes by module, and by what follows its name

_ENDINGS = {"lora_up.weight", "lora_down.weight", "alpha", "dora_scale", MAGNITUDE}
_DORA = {"dora_scale", MAGNITUDE}


def check_start_file(recipe: Recipe, places: Places) -> None:
    """As `check_start`, of the files in `places`, before a run.

    A base that is not one safetensors file is compared when it is loaded.
    """
    if places.start is not None and (layers := read_layers(places.base)):
        check_start(places.start, recipe, layers)


def check_start(path: Path, recipe: Recipe, layers: Mapping[str, Layer]) -> None:
    """Checks, by its header, that a recipe can start from the LoRA file `path`.

    `layers` are the base's (`lora_layers`). Raises AdapterError for a file that is no plain LoRA
    or DoRA, is damaged, or is of another model, and RecipeError for what the recipe does not
    train; that names the field to change.
    """
    shapes = read_lora_shapes(path)
    _check_kind(path.name, shapes, layers)
    modules = _modules(shapes)
    family = guess_family(shapes)
    for module, parts in sorted(modules.items()):
        check_alpha(path.name, module, parts)
        check_matrices(path.name, module, parts, layers[module].shape, family)
    assert isinstance(recipe.method, LoRA)
    _check_trained(path.name, [layers[module] for module in modules], recipe, recipe.method)
    _check_rank(path, modules, recipe.method)
    _check_dora(path.name, modules, layers, recipe.method)


def _modules(shapes: Shapes) -> Modules:
    """The shapes by module, without the one that SD 1.x does not use."""
    modules = group_by_module(shapes)
    modules.pop(UNUSED_MODULE, None)
    return modules


def _check_kind(name: str, shapes: Shapes, layers: Mapping[str, Layer]) -> None:
    """Raises AdapterError unless all tensors are LoRA's or DoRA's, and of layers of the base."""
    check_embeddings(name, shapes)
    modules, family = _modules(shapes), guess_family(shapes)
    if family in LYCORIS_FAMILIES:
        raise AdapterError(
            f"{name} is a {family}: a training can start from a LoRA or DoRA only. Choose one."
        )
    unknown = [module for module in modules if module not in layers]
    if unknown or not modules:
        raise AdapterError(
            f"{name} does not fit the base model: {len(unknown)} of its {len(modules)} modules "
            f"match nothing in it ({list_names(unknown)}). Detected type: {family}. Choose a LoRA "
            "for this base."
        )
    others = [f"{m}.{ending}" for m, parts in modules.items() for ending in parts.keys() - _ENDINGS]
    if others:
        raise AdapterError(
            f"{name} changes weights or biases without low-rank matrices ({list_names(others)}), "
            "which cannot be trained further. Choose a plain LoRA."
        )
    seen: dict[Layer, str] = {}
    for module in modules:
        if (first := seen.setdefault(layers[module], module)) != module:
            raise AdapterError(f"{name} contains a layer twice, as {first} and as {module}.")


def _check_trained(name: str, layers: list[Layer], recipe: Recipe, method: LoRA) -> None:
    """Raises RecipeError if the recipe does not train all these layers of the file."""
    if not recipe.text_encoder.train and any(layer.part == "text_encoder" for layer in layers):
        raise RecipeError(
            f"{name} also changes the text encoder, which this recipe does not train: set "
            "text_encoder.train to true (in ComfyUI: train_text_encoder)."
        )
    left = [layer for layer in layers if not layer.is_target(method.targets)]
    if not left:
        return
    listed = f"{len(left)} layers ({list_names([layer.path for layer in left])})"
    wider = [targets for targets in TARGETS if all(one.is_target(targets) for one in layers)]
    if not wider:
        raise RecipeError(
            f"{name} changes {listed} that no method.targets trains: choose another LoRA."
        )
    raise RecipeError(
        f"{name} changes {listed} that method.targets {method.targets!r} does not train: set "
        f"method.targets to {wider[0]!r}."
    )


def _check_rank(path: Path, modules: Modules, method: LoRA) -> None:
    rank = max(parts["lora_down.weight"][0] for parts in modules.values())
    if rank <= method.rank:
        return
    resize = f", or reduce the file first: likeness resize {path.name} {method.rank}"
    dora = any(parts.keys() & _DORA for parts in modules.values())  # cannot be resized
    raise RecipeError(
        f"{path.name} has rank {rank}, more than method.rank, which is {method.rank}: set "
        f"method.rank to {rank}{'' if dora else resize}."
    )


def _check_dora(name: str, modules: Modules, layers: Mapping[str, Layer], method: LoRA) -> None:
    """Raises RecipeError for a DoRA if the recipe trains none, AdapterError for scales of inputs,
    which PEFT's DoRA does not have.
    """
    scaled = [module for module, parts in modules.items() if parts.keys() & _DORA]
    if scaled and not method.dora:
        raise RecipeError(f"{name} is a DoRA: set method.dora to true, or choose a plain LoRA.")
    for module in scaled:
        of_outputs, _ = dora_scale_shapes(layers[module].shape)
        if modules[module].get("dora_scale", of_outputs) != of_outputs:
            raise AdapterError(
                f"{name} is a DoRA whose scales are those of the inputs ({module}); only scales of "
                "the outputs can be trained further. Choose another file."
            )


def load_start(
    path: Path, digest: str, cache: Path, layers: Mapping[str, Layer]
) -> dict[str, dict[str, Tensor]]:
    """The tensors of a file that `check_start` accepts, by kohya's module name and what follows it.

    Raises RecipeError if it is not the one of this `digest`, and AdapterError for non-finite
    values.
    """
    if content_digest(path, cache) != digest:
        raise RecipeError(
            f"{path.name}, from which the training starts, has changed since the run was prepared. "
            "Restore it, or start a new training from it."
        )
    tensors = load_adapter(path)
    bad = [name for name, tensor in tensors.items() if not tensor.float().isfinite().all()]
    if bad:
        raise AdapterError(f"{path.name} is damaged: {list_names(bad)} has non-finite values.")
    modules = group_by_module(tensors)
    modules.pop(UNUSED_MODULE, None)
    return {layers[module].name: parts for module, parts in modules.items()}
