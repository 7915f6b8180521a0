"""The study's comparison, 8 variants x 6 prompts, against a loop over a diffusers pipeline."""

from __future__ import annotations

from pathlib import Path

from .draw_benchmark import compare, table
from .inputs import Model, Size, write_lora, write_model
from .matrix import PROMPTS
from .options import common_parser, parse_options, publish, working_folder
from .table import machine

TUNED, LORAS = 3, 4


def write_variants(folder: Path, model: Model, size: Size) -> dict[str, str | None]:
    """Writes full fine-tunes and LoRAs with random weights; returns files by variant name."""
    from likeness.demo.random_model import write_random_model

    variants: dict[str, str | None] = {"base": None}
    for number in range(TUNED):
        path = folder / f"tuned-{size}-{number}.safetensors"
        if not path.is_file():
            write_random_model(path, seed=number + 1, size=size, dtype="fp16")
        variants[f"tuned-{number}"] = str(path)
    for number in range(LORAS):
        path = write_lora(folder / f"lora-{size}-{number}.safetensors", model.checkpoint, number)
        variants[f"lora-{number}"] = str(path)
    return variants


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = common_parser("comparison", __doc__ or "")
    parser.add_argument("--steps", type=int, default=35, help="sampling steps")
    args = parse_options(parser, arguments)
    with working_folder(args) as folder:
        model = write_model(folder, args.size)
        task = {
            "model": str(model.folder),
            "checkpoint": str(model.checkpoint),
            "variants": write_variants(folder, model, args.size),
            "prompts": PROMPTS,
            "negative": "blurry",
            "device": args.device,
            "size": args.resolution,
            "steps": args.steps,
        }
        sides = {
            "Likeness": ("our_cells", task),
            "a pipeline": ("pipeline_cells", task),
        }
        results = compare(sides, folder, args.device, args.rounds)
    about = (
        f"{machine(args.device == 'cpu')}\n\n{args.size} model of random weights: the base, "
        f"{TUNED} full fine-tunes and {LORAS} LoRAs x {len(PROMPTS)} prompts, {args.resolution} "
        f"x {args.resolution} pixels, {args.steps} steps of Euler, guidance 7.5, {args.rounds} "
        "rounds. Loading the variants is included."
    )
    publish(args, f"{about}\n\n{table(results)}")
