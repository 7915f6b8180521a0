"""Hides optional packages that a process does not need, or that fail at import.

diffusers and peft import xformers and bitsandbytes if installed, used or not. That takes a second
or more, and fails if one of them is broken: built for another PyTorch, or beside another
flash-attn, Triton or CUDA.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection
from importlib import import_module

from .packages import is_installed
from .recipe import DreamBooth, Recipe

# The module of each package to import as a check.
_IMPORT_CHECKS = {"xformers": "xformers.ops", "bitsandbytes": "bitsandbytes"}

_import_errors: dict[str, str] = {}
_log = logging.getLogger(__name__)


def packages_needed_by(recipe: Recipe) -> set[str]:
    """Which of these packages a run may use: DreamBooth's memory tiers include 8-bit Adam."""
    eight_bit = recipe.optimizer.name == "adamw8bit" or isinstance(recipe.method, DreamBooth)
    wanted = {"bitsandbytes": eight_bit, "xformers": recipe.compute.attention == "xformers"}
    return {package for package, yes in wanted.items() if yes}


def hide_packages(needed: Collection[str] = ()) -> None:
    """Hides from this process the packages that are not `needed`, or that fail to import.

    One that is already imported stays. Must be called before diffusers or peft is imported.
    """
    for package, module in _IMPORT_CHECKS.items():
        if not is_installed(package):
            continue
        if package in needed:
            try:
                import_module(module)
                continue
            except Exception as error:  # noqa: BLE001  diffusers would fail the same way
                _import_errors[package] = f"{type(error).__name__}: {error}"
                _log.warning("%s is not used: it %s", package, import_error(package))
        elif sys.modules.get(package) is not None:
            continue  # already imported, and bitsandbytes cannot be imported twice
        _hide(package)


def _hide(package: str) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        del sys.modules[name]
    sys.modules[package] = None  # type: ignore[assignment]  # Python then treats it as missing


def import_error(package: str) -> str | None:
    """What is wrong with a needed package, as the end of a sentence; None if nothing."""
    found = _import_errors.get(package)
    return None if found is None else f"is installed but cannot be imported ({found:.300})"
