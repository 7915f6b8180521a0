"""What the arguments of `likeness compare` mean: a plan, files, and the command to repeat it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..trainers.places import cache_folder
from ..trainers.terminal import with_settings
from .compare import Files
from .encoders import EncoderFiles
from .errors import ComparisonError
from .plan_file import (
    YOGA,
    PlanFile,
    find_plan,
    with_adapters,
    with_recipes,
    with_sets,
    without_pose,
)
from .prompts import bundled_sets
from .study import AGAIN_FILE


def given_plan(given: argparse.Namespace) -> PlanFile:
    """The plan with the changes that the command line asks for. Raises ComparisonError."""
    plan = find_plan(given.plan)
    if given.set:
        plan = with_recipes(plan, lambda recipe: with_settings(recipe, given.set))
    plan = with_adapters(
        plan, {row: path.name for row, path in named_adapters(given.adapter).items()}
    )
    plan = with_sets(plan, given.prompts, given.poses)
    plan = without_pose(plan) if given.without_pose else plan
    if given.poses and not any(cell.with_pose for cell in plan.matrix({}).cells()):
        raise ComparisonError(
            "--poses: no row is drawn with a pose. Give rows of the plan, or all of it, "
            '"with_pose": "both" or "with", and leave out --without-pose.'
        )
    return plan


def add_sets(parser: argparse.ArgumentParser) -> None:
    """The arguments for prompts and poses of the user's own."""
    parser.add_argument(
        "--prompts", metavar="FILE", help="instead of the plan's: .txt with one prompt a line, a "
        f".json prompt set, or one of {', '.join(bundled_sets())}",
    )  # fmt: skip
    parser.add_argument(
        "--poses", metavar="FILE", help="instead of the plan's: OpenPose keypoints as .json, or "
        f"{YOGA} for the bundled ones",
    )  # fmt: skip


def named_adapters(adapters: Sequence[str]) -> dict[str, Path]:
    """Files by row, of ROW=FILE. Raises ComparisonError."""
    found = {}
    for text in adapters:
        row, _, path = text.partition("=")
        if not (row and path):
            raise ComparisonError(f"--adapter takes ROW=FILE, such as r4=anna.safetensors: {text}")
        found[row] = Path(path)
    return found


def given_files(given: argparse.Namespace) -> Files:
    """Where everything is that the command names. Raises ComparisonError."""
    own = (given.output / "loras", given.output / "checkpoints")
    return Files(
        base=given.base,
        output=given.output,
        photos=given.photos,
        controlnet=given.controlnet,
        adapters=named_adapters(given.adapter),
        folders=(*given.adapters, *own),
        class_images=given.class_images,
        tokenizers=tuple(given.tokenizer),
    )


def given_encoders(given: argparse.Namespace) -> EncoderFiles:
    """Where the encoders' weights are."""
    return EncoderFiles(
        clip_image=given.clip,
        clip_text=given.clip_text,
        dino=given.dino,
        tokenizers=tuple(given.tokenizer),
        cache=cache_folder(given.output),
    )


def check_encoders(given: argparse.Namespace) -> None:
    """Raises ComparisonError for files that are not there, before hours of training."""
    for flag, path in (
        ("--clip", given.clip), ("--clip-text", given.clip_text), ("--dino", given.dino),
    ):  # fmt: skip
        if path is not None and not path.exists():
            raise ComparisonError(f"{flag}: there is no {path}.")
    if given.clip_text and not given.clip:
        raise ComparisonError("--clip-text is the text encoder of --clip, which is missing.")


def drawing_command(given: argparse.Namespace) -> list[str]:
    """The arguments of `likeness` that draw the same plan's cells on the CPU of this machine."""
    parts = ["compare", str(given.plan), "--device", "cpu", "--output", str(given.output)]
    for name in ("base", "photos", "class_images", "controlnet", "prompts", "poses"):
        path = getattr(given, name)
        parts += [_flag(name), str(path)] if path else []
    for name in ("tokenizer", "adapter", "adapters", "set"):
        for value in getattr(given, name):
            parts += [_flag(name), str(value)]
    return [*parts, *(["--without-pose"] if given.without_pose else [])]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def command_again(given: argparse.Namespace) -> str:
    """The command that does the same, without the places of this machine.

    Prompts, poses and settings are in the plan that it names.
    """
    parts = ["likeness", "compare", AGAIN_FILE]
    for name in ("base", "photos", "class_images", "controlnet", "clip", "clip_text", "dino"):
        path = getattr(given, name)
        parts += [_flag(name), path.resolve().name] if path else []
    for name in ("tokenizer", "adapters"):
        for path in getattr(given, name):
            parts += [_flag(name), path.resolve().name]
    for row, path in named_adapters(given.adapter).items():
        parts += ["--adapter", f"{row}={path.name}"]
    return shlex.join(parts)
