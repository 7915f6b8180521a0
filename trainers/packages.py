"""The packages that training and a recipe need, checked before anything starts."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from .errors import NOT_INSTALLED, MissingPackage, MissingRequirements
from .recipe import Recipe

_OPTIMIZERS = {
    "adamw8bit": (
        "bitsandbytes",
        "8-bit Adam",
        "add --set optimizer.name=adamw (in ComfyUI: set optimizer of the train node to adamw)",
    ),
    "prodigy": ("prodigyopt", "The Prodigy optimizer", ""),
}
_SDPA = "add --set compute.attention=sdpa (in ComfyUI: set attention of Train Options to sdpa)"
_MIN_BITSANDBYTES_ON_CPU = Version("0.50")  # older ones fail there, at import or at the first step
_REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"  # a wheel has none
_IMPORTED_AS = {"pillow": "PIL"}


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # another pack put a stub without a spec into sys.modules
        return False


def require_dependencies() -> None:
    """Raises MissingRequirements if this pack's requirements are not met.

    ComfyUI itself needs only some of them, so a clone without ``pip install -r`` loads. Takes
    about 10 ms; not cached, as packages may be installed while ComfyUI runs.
    """
    lacks = {str(one): lack for one in _requirements() if (lack := _unmet_reason(one))}
    if lacks:
        raise MissingRequirements(lacks)


@cache
def _requirements() -> tuple[Requirement, ...]:
    """From requirements.txt, else from the installed package's metadata."""
    if _REQUIREMENTS.is_file():
        lines = _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    else:
        lines = _wheel_requirements()
    found = [Requirement(line) for line in lines if line.strip() and line[0] != "#"]
    return tuple(one for one in found if one.marker is None or one.marker.evaluate({"extra": ""}))


def _wheel_requirements() -> list[str]:
    try:
        return metadata.requires("comfyui-likeness") or []
    except metadata.PackageNotFoundError:
        return []


def _unmet_reason(requirement: Requirement) -> str | None:
    """Why a requirement is not met, as the end of a sentence; None if it is."""
    name = requirement.name
    try:
        found = metadata.version(name)
        known = requirement.specifier.contains(found, prereleases=True)
    except (metadata.PackageNotFoundError, InvalidVersion, TypeError, KeyError):
        # A checkout on the path, or damaged metadata: it may work.
        return None if is_installed(_IMPORTED_AS.get(name, name)) else NOT_INSTALLED
    return None if known else f"is installed as {found}"


def eight_bit_unavailable_reason() -> str | None:
    """Why 8-bit Adam cannot be used on this machine, as the end of a sentence; None if it can."""
    if not is_installed("bitsandbytes"):
        return NOT_INSTALLED
    try:
        found = metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:  # a checkout on the path
        return None
    if Version(found) >= _MIN_BITSANDBYTES_ON_CPU:
        return None
    from torch import cuda  # takes seconds; needed for an old version only

    if cuda.is_available():
        return None
    least = _MIN_BITSANDBYTES_ON_CPU
    return f"is installed as {found}; without a CUDA GPU it must be {least} or newer"


def require_packages(recipe: Recipe) -> None:
    """Raises MissingPackage for the first optional one that is needed and missing or too old."""
    needs = []
    if recipe.optimizer.name in _OPTIMIZERS:
        needs.append(_OPTIMIZERS[recipe.optimizer.name])
    if recipe.compute.attention == "xformers":
        needs.append(("xformers", "xformers attention", _SDPA))
    if recipe.subject.crop == "face":
        needs.append(("dlib", "The face crop", ""))
    for package, why, instead in needs:
        absent = None if is_installed(package) else NOT_INSTALLED
        if lack := eight_bit_unavailable_reason() if package == "bitsandbytes" else absent:
            name = "dlib-bin" if package == "dlib" else package
            raise MissingPackage(name, why, lack, instead)
