"""From the arguments of `likeness compare` to a plan, files, and the command to repeat it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..trainers.arguments import apply_overrides
from ..trainers.places import cache_folder
from .compare import ComparisonFiles, expand_patterns
from .encoders import EncoderFiles
from .errors import ComparisonError
from .plan_file import (
    YOGA,
    PlanFile,
    find_plan,
    with_adapters,
    with_prompts_and_poses,
    with_recipes,
    without_pose,
)
from .prompts import bundled_sets
from .study import RERUN_PLAN_FILE


def plan_from_args(args: argparse.Namespace) -> PlanFile:
    """The plan with the command line's changes applied. Raises ComparisonError."""
    plan = find_plan(args.plan)
    if args.set:
        plan = with_recipes(plan, lambda recipe: apply_overrides(recipe, args.set))
    plan = with_adapters(
        plan, {row: path.name for row, path in parse_adapters(args.adapter).items()}
    )
    plan = expand_patterns(plan, files_from_args(args))
    plan = with_prompts_and_poses(plan, args.prompts, args.poses)
    plan = without_pose(plan) if args.without_pose else plan
    if args.poses and not any(cell.with_pose for cell in plan.matrix({}).cells()):
        raise ComparisonError(
            '--poses: no row has a pose. Set "with_pose" to "both" or "with" in the plan '
            "or in its rows, and omit --without-pose."
        )
    return plan


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for custom prompts and poses."""
    parser.add_argument(
        "--prompts", metavar="FILE", help="replaces the plan's: .txt with one prompt per line, a "
        f".json prompt set, or one of {', '.join(bundled_sets())}",
    )  # fmt: skip
    parser.add_argument(
        "--poses", metavar="FILE", help="replaces the plan's: OpenPose keypoints as .json, or "
        f"{YOGA} for the bundled ones",
    )  # fmt: skip


def parse_adapters(adapters: Sequence[str]) -> dict[str, Path]:
    """Parses ROW=FILE arguments into files by row. Raises ComparisonError."""
    found = {}
    for text in adapters:
        row, _, path = text.partition("=")
        if not (row and path):
            raise ComparisonError(
                f"--adapter takes ROW=FILE, such as r4=anna.safetensors, not {text}."
            )
        found[row] = Path(path)
    return found


def files_from_args(args: argparse.Namespace) -> ComparisonFiles:
    """The files and folders that the command names. Raises ComparisonError."""
    own = (args.output / "loras", args.output / "checkpoints")
    return ComparisonFiles(
        base=args.base,
        output=args.output,
        photos=args.photos,
        controlnet=args.controlnet,
        adapters=parse_adapters(args.adapter),
        folders=(*args.adapters, *own),
        class_images=args.class_images,
        tokenizers=tuple(args.tokenizer),
    )


def encoder_files_from_args(args: argparse.Namespace) -> EncoderFiles:
    """The files of the encoders' weights."""
    return EncoderFiles(
        clip_image=args.clip,
        clip_text=args.clip_text,
        dino=args.dino,
        tokenizers=tuple(args.tokenizer),
        cache=cache_folder(args.output),
    )


def check_encoders(args: argparse.Namespace) -> None:
    """Raises ComparisonError for missing encoder files, before hours of training."""
    for flag, path in (
        ("--clip", args.clip), ("--clip-text", args.clip_text), ("--dino", args.dino),
    ):  # fmt: skip
        if path is not None and not path.exists():
            raise ComparisonError(f"{flag}: {path} does not exist.")
    if args.clip_text and not args.clip:
        raise ComparisonError("--clip-text needs --clip, the image encoder it belongs to.")


def drawing_command(args: argparse.Namespace) -> list[str]:
    """The `likeness` arguments, without the plan, that draw its cells on this machine's CPU."""
    parts = ["--device", "cpu", "--output", str(args.output)]
    for name in ("base", "photos", "class_images", "controlnet"):
        path = getattr(args, name)
        parts += [_flag(name), str(path)] if path else []
    for name in ("tokenizer", "adapter", "adapters"):
        for value in getattr(args, name):
            parts += [_flag(name), str(value)]
    return parts


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def rerun_command(args: argparse.Namespace) -> str:
    """The command that repeats the comparison, without paths of this machine.

    Prompts, poses and settings are in the plan that it names.
    """
    parts = ["likeness", "compare", RERUN_PLAN_FILE]
    for name in ("base", "photos", "class_images", "controlnet", "clip", "clip_text", "dino"):
        path = getattr(args, name)
        parts += [_flag(name), path.resolve().name] if path else []
    for name in ("tokenizer", "adapters"):
        for path in getattr(args, name):
            parts += [_flag(name), path.resolve().name]
    for row, path in parse_adapters(args.adapter).items():
        parts += ["--adapter", f"{row}={path.name}"]
    return shlex.join(parts)


def check_at_once(args: argparse.Namespace) -> None:
    """Raises ComparisonError if `--at-once` cannot be used here."""
    if args.at_once < 1:
        raise ComparisonError("--at-once must be at least 1.")
    if args.at_once > 1 and resolve_device(args.device) != "cpu":
        raise ComparisonError("--at-once works on CPUs only: give --device cpu, or omit it.")


def resolve_device(device: str) -> str:
    """``cuda`` or ``cpu`` for ``--device`` auto or cpu."""
    import torch

    return "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
