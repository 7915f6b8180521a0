"""Optional packages that a process does not need, or that fail at import, hidden from others.

diffusers and peft import xformers and bitsandbytes wherever these are installed, used or not: that
takes a second or more, and where one does not work (built for another PyTorch, beside another
flash-attn, Triton or CUDA) they fail, too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection
from importlib import import_module

from .packages import is_installed
from .recipe import DreamBooth, Recipe

_IMPORT_CHECKS = {
    "xformers": "xformers.ops",
    "bitsandbytes": "bitsandbytes",
}  # what is imported of it

_import_errors: dict[str, str] = {}
_log = logging.getLogger(__name__)


def packages_needed_by(recipe: Recipe) -> set[str]:
    """Which of these packages a run may use: DreamBooth's memory tiers have 8-bit Adam."""
    eight_bit = recipe.optimizer.name == "adamw8bit" or isinstance(recipe.method, DreamBooth)
    wanted = {"bitsandbytes": eight_bit, "xformers": recipe.compute.attention == "xformers"}
    return {package for package, yes in wanted.items() if yes}


def hide_packages(needed: Collection[str] = ()) -> None:
    """Hides from this process the packages that are not `needed`, and of these what fails.

    To be called before diffusers or peft is imported.
    """
    for package, module in _IMPORT_CHECKS.items():
        if not is_installed(package):
            continue
        if package in needed:
            try:
                import_module(module)
                continue
            except Exception as error:  # noqa: BLE001  whatever it raises, it would elsewhere
                _import_errors[package] = f"{type(error).__name__}: {error}"
                _log.warning("%s is set aside: it %s", package, import_error(package))
        elif sys.modules.get(package) is not None:
            continue  # it cost its time already, and bitsandbytes cannot be imported twice
        _hide(package)


def _hide(package: str) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        del sys.modules[name]
    sys.modules[package] = None  # type: ignore[assignment]  # Python then takes it for absent


def import_error(package: str) -> str | None:
    """What was wrong with a needed package, as the end of a sentence; None if nothing."""
    found = _import_errors.get(package)
    return None if found is None else f"is installed and cannot be imported ({found:.300})"
