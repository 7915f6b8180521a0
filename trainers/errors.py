"""What can go wrong, as types. Every message says what happened and what to do about it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping


class LikenessError(Exception):
    """Base of every error meant for the user: its text is shown as it is, without a traceback.

    `exit_code` is what a run's process ends with, for a parent that hears nothing else of it.
    """

    exit_code = 1


class RecipeError(LikenessError):
    """A recipe that cannot be trained: the message names the fields and the mend."""


class SubjectError(LikenessError):
    """Photographs or class images that cannot be used."""


class BaseModelError(LikenessError):
    """A base model that is missing, damaged or of another family."""


class AdapterError(LikenessError):
    """An adapter file that is damaged, or made for another model."""


class OutputExists(AdapterError):
    """Another file has the name that a result should get."""


class NothingLearned(AdapterError):
    """A LoRA that changes nothing: no file is made of it."""


class CheckpointError(LikenessError):
    """A training checkpoint that is damaged or belongs to another run."""


class OptimizerMismatch(CheckpointError):
    """A whole checkpoint of the same run, with the state of another optimizer."""


NOT_INSTALLED = "is not installed"


def _pip_install(*packages: str) -> str:
    """The command that installs packages into this Python, which may leave the user's own out
    (``-s``), as ComfyUI's portable build does.
    """
    own = ["-s"] if sys.flags.no_user_site else []
    words = [sys.executable, *own, "-m", "pip", "install", "--upgrade", *packages]
    return " ".join(f'"{word}"' if re.search(r"[\s<>=]", word) else word for word in words)


class MissingPackage(LikenessError):
    """An optional package is needed, and absent or too old.

    Args:
        package: its name on the package index.
        why: what asked for it, e.g. ``"8-bit Adam"``.
        lack: what is wrong with it, as the end of a sentence.
    """

    def __init__(self, package: str, why: str, lack: str = NOT_INSTALLED) -> None:
        super().__init__(
            f"{why} needs the package {package}, which {lack}. Install it into the Python that "
            f"runs this: {_pip_install(package)}"
        )
        self.package = package


class MissingRequirements(LikenessError):
    """Packages that every training needs are absent or too old.

    Args:
        lacks: what is wrong with each, as the end of a sentence, by its requirement, e.g.
            ``"accelerate>=1.0"``.
    """

    def __init__(self, lacks: Mapping[str, str]) -> None:
        said = "; ".join(f"{requirement} {lack}" for requirement, lack in lacks.items())
        super().__init__(
            f"Training needs this pack's requirements: {said}. Install what is missing into the "
            f"Python that runs this: {_pip_install(*lacks)}"
        )


class OutOfSpace(LikenessError):
    """The disk has not enough room: the message names the folder, the need and what is free."""

    exit_code = 5


class OutOfMemory(LikenessError):
    """The GPU or the machine has too little memory: the message names what to change."""


class Diverged(LikenessError):
    """The loss or the weights went wrong: the message names the step and what to change."""


class RunFailed(LikenessError):
    """A training run ended with an error: the message has the cause and the path of the log."""


class RunBusy(RunFailed):
    """The run is being trained by another process."""

    exit_code = 4


class RunCancelled(LikenessError):
    """A training run was ended before it had a result; it goes on when it is started again.

    `step` is the last one whose state is saved, 0 if this attempt saved none.
    """

    exit_code = 3

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step
