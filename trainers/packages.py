"""The optional packages a recipe asks for, checked before anything starts."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import MissingPackage
from .recipe import Recipe

_OPTIMIZERS = {
    "adamw8bit": ("bitsandbytes", "cuda", "8-bit Adam"),
    "prodigy": ("prodigyopt", "prodigy", "The Prodigy optimizer"),
}


def require_packages(recipe: Recipe) -> None:
    """Raises MissingPackage, which names the extra to install, for the first one absent."""
    needs = []
    if recipe.optimizer.name in _OPTIMIZERS:
        needs.append(_OPTIMIZERS[recipe.optimizer.name])
    if recipe.compute.attention == "xformers":
        needs.append(("xformers", "cuda", "xformers attention"))
    if recipe.subject.crop == "face":
        needs.append(("dlib", "scores", "The face crop"))
    for package, extra, why in needs:
        if find_spec(package) is None:
            raise MissingPackage("dlib-bin" if package == "dlib" else package, extra, why)
