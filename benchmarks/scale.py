"""The cost of many photographs and class images: encoding, cache, step time, and memory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .inputs import write_images
from .measure import Measurement, measure
from .options import common_parser, parse_options, publish, temporary_folder, working_folder
from .setting import IMAGES, Setting, our_command, recipe_of, setting_of
from .table import format_quartiles, gigabytes, machine, markdown, not_measured

PHOTOS = (15, 150, 1500)
CLASSES = (500, 5000)
_HEAD = (
    *("photographs", "class images", "run", "encode, s", "first step after, s"),
    *("step, s: median (quartiles)", "peak memory, GB", "without mapped files, GB"),
    "cache on the disk, MB",
)


@dataclass(frozen=True)
class ImageCounts:
    """The number of photographs and of class images of a run."""

    photos: int
    classes: int


def counts_of(photos: list[int], classes: list[int]) -> Iterator[ImageCounts]:
    """Increasing photographs with few class images, then increasing class images."""
    for count in photos:
        yield ImageCounts(count, IMAGES)
    for count in classes:
        yield ImageCounts(min(photos), count)


def measure_cold_and_warm(
    counts: ImageCounts, setting: Setting, folder: Path
) -> tuple[list[Measurement], int]:
    """A run with an empty latent cache, one with a full cache, and the cache's size in bytes."""
    side = setting.resolution
    setting = replace(
        setting,
        photos=write_images(folder / f"{counts.photos}-{side}", counts.photos, side, 2, "jpg"),
        class_images=write_images(
            folder / f"class-{counts.classes}-{side}", counts.classes, side, 3, "jpg"
        ),
    )
    recipe = recipe_of("lora", setting)
    runs = []
    with temporary_folder(folder) as cache:
        for _ in ("encoded", "found"):
            with temporary_folder(folder) as place:
                command = our_command(recipe, setting, place, cache=cache)
                runs.append(measure(command, place, cpu=setting.device == "cpu"))
        size = sum(file.stat().st_size for file in (cache / "latents").rglob("*.safetensors"))
    return runs, size


def row(counts: ImageCounts, name: str, run: Measurement, size: int) -> list[str]:
    """A row of the table."""
    start = [f"{counts.photos:,}", f"{counts.classes:,}", name]
    if run.error or not run.intervals:
        return [*start, not_measured([run])]
    return [
        *start,
        f"{run.stages['encode']:.1f}",
        f"{run.first:.1f}",
        format_quartiles(run.intervals),
        gigabytes(run.memory),
        gigabytes(run.peak.anonymous),
        f"{size / 1e6:.1f}",
    ]


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = common_parser("scale", __doc__ or "")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--photos", type=int, nargs="+", default=list(PHOTOS))
    parser.add_argument("--classes", type=int, nargs="+", default=list(CLASSES))
    # Growth shows best with a small model.
    parser.set_defaults(size="tiny", resolution=256)
    args = parse_options(parser, arguments)
    with working_folder(args) as folder:
        setting = setting_of(args, folder, "fp32" if args.device == "cpu" else "fp16")
        rows = []
        for counts in counts_of(args.photos, args.classes):
            runs, size = measure_cold_and_warm(counts, setting, folder)
            for name, run in zip(("encoded", "from the cache"), runs, strict=True):
                rows.append(row(counts, name, run, size))
                print(" | ".join(rows[-1]), flush=True)
    publish(args, f"{about(args)}\n\n{markdown(_HEAD, rows)}")


def about(args: argparse.Namespace) -> str:
    """Describes the measurement and the machine."""
    return (
        f"{machine(args.device == 'cpu')}\n\n{args.size} model of random weights, LoRA with text "
        f"encoder, {args.resolution} x {args.resolution} pixels, {args.steps} steps; each run "
        "with an empty and then with a full cache."
    )
