"""The optional packages a recipe asks for, checked before anything starts."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from packaging.version import Version

from .errors import ABSENT, MissingPackage
from .recipe import Recipe

_OPTIMIZERS = {
    "adamw8bit": ("bitsandbytes", "8-bit Adam"),
    "prodigy": ("prodigyopt", "The Prodigy optimizer"),
}
_EIGHT_BIT_ON_CPU = Version("0.50")  # older ones fail at import there, or at the first step


def eight_bit_lack() -> str | None:
    """Why 8-bit Adam cannot be used on this machine, as the end of a sentence; None if it can."""
    if find_spec("bitsandbytes") is None:
        return ABSENT
    try:
        found = metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:  # a checkout on the path
        return None
    if Version(found) >= _EIGHT_BIT_ON_CPU:
        return None
    from torch import cuda  # seconds, which only an old version costs

    if cuda.is_available():
        return None
    return f"is there as {found}; without a CUDA GPU it must be {_EIGHT_BIT_ON_CPU} or newer"


def require_packages(recipe: Recipe) -> None:
    """Raises MissingPackage for the first one absent or too old."""
    needs = []
    if recipe.optimizer.name in _OPTIMIZERS:
        needs.append(_OPTIMIZERS[recipe.optimizer.name])
    if recipe.compute.attention == "xformers":
        needs.append(("xformers", "xformers attention"))
    if recipe.subject.crop == "face":
        needs.append(("dlib", "The face crop"))
    for package, why in needs:
        absent = None if find_spec(package) else ABSENT
        if lack := eight_bit_lack() if package == "bitsandbytes" else absent:
            raise MissingPackage("dlib-bin" if package == "dlib" else package, why, lack)
