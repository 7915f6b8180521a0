"""Error types. Every message says what happened and what to do about it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping


class LikenessError(Exception):
    """Base of every error meant for the user: its text is shown as is, without a traceback.

    `exit_code` is that of a run's process, for a parent that gets no other report.
    """

    exit_code = 1


class RecipeError(LikenessError):
    """A recipe that cannot be trained; the message names the fields and the fix."""


class SubjectError(LikenessError):
    """Photographs or class images that cannot be used."""


class BaseModelError(LikenessError):
    """A base model that is missing, damaged or of another family."""


class AdapterError(LikenessError):
    """An adapter file that is damaged, or made for another model."""


class OutputExists(AdapterError):
    """The file name of a result is taken by another file."""


class NothingLearned(AdapterError):
    """A LoRA that changes nothing, so no file is written."""


class CheckpointError(LikenessError):
    """A training checkpoint that is damaged or belongs to another run."""


class OptimizerMismatch(CheckpointError):
    """An intact checkpoint of the same run, with the state of another optimizer."""


NOT_INSTALLED = "is not installed"


def pip_install(*packages: str) -> str:
    """Command that installs packages into this Python, with ``-s`` if it ignores the user site,
    as ComfyUI's portable build does.
    """
    flags = ["-s"] if sys.flags.no_user_site else []
    words = [sys.executable, *flags, "-m", "pip", "install", "--upgrade", *packages]
    return " ".join(f'"{word}"' if re.search(r"[\s<>=]", word) else word for word in words)


class MissingPackage(LikenessError):
    """An optional package is needed but missing or too old.

    Args:
        package: its name on the package index.
        why: what needs it, e.g. ``"8-bit Adam"``.
        lack: what is wrong with it, as the end of a sentence.
        instead: what to do without it, as the end of a sentence.
    """

    def __init__(
        self, package: str, why: str, lack: str = NOT_INSTALLED, instead: str = ""
    ) -> None:
        super().__init__(
            f"{why} needs the package {package}, which {lack}. Install it into the Python in use: "
            f"{pip_install(package)}" + (f"\nTo do without it, {instead}." if instead else "")
        )
        self.package = package


class MissingRequirements(LikenessError):
    """Packages that every training needs are missing or too old.

    Args:
        lacks: what is wrong with each requirement, e.g. ``"accelerate>=1.0"``, as the end of a
            sentence.
    """

    def __init__(self, lacks: Mapping[str, str]) -> None:
        problems = "; ".join(f"{requirement} {lack}" for requirement, lack in lacks.items())
        super().__init__(
            f"Training needs this pack's requirements: {problems}. Install them into the Python in "
            f"use: {pip_install(*lacks)}"
        )


class OutOfSpace(LikenessError):
    """Not enough disk space; the message names the folder, the need and the free space."""

    exit_code = 5


class OutOfMemory(LikenessError):
    """Not enough memory on the GPU or the machine; the message names what to change."""


class RestartNeeded(OutOfMemory):
    """One of several processes ran out of memory; a lower memory tier is saved for the next start.

    `job.train` starts the run again; other launchers end with this message.
    """


class Diverged(LikenessError):
    """The loss or the weights diverged; the message names the step and what to change."""


class RunFailed(LikenessError):
    """A training run failed; the message has the cause and the path of the log."""


class RunBusy(RunFailed):
    """The run is already being trained by another process."""

    exit_code = 4


class RunCancelled(LikenessError):
    """A training run was ended before it had a result; it resumes when started again.

    `step` is the last one whose state is saved, 0 if this attempt saved none.
    """

    exit_code = 3

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step
