"""Class images, against a diffusers pipeline as the DreamBooth scripts use it."""

from __future__ import annotations

from likeness.trainers.recipe import Prior

from .draw_benchmark import compare, table
from .inputs import write_model
from .options import common_parser, parse_options, publish, working_folder
from .table import machine

SCRIPT_BATCH, SCRIPT_STEPS = 4, 50  # defaults of the scripts and the pipeline


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = common_parser("class-images", __doc__ or "")
    parser.add_argument("--count", type=int, help="default: 4 on the CPU, else 500")
    parser.add_argument("--steps", type=int, default=Prior().steps)
    args = parse_options(parser, arguments)
    count = args.count or (4 if args.device == "cpu" else 500)
    with working_folder(args) as folder:
        task = {
            "model": str(write_model(folder, args.size).folder),
            "device": args.device,
            "size": args.resolution,
            "count": count,
            "steps": args.steps,
            "batch": SCRIPT_BATCH,
            "prompt": "a photo of man",
        }
        loop = "pipeline_class_images"
        sides = {
            f"Likeness, {args.steps} steps": ("our_class_images", task),
            f"a pipeline, {args.steps} steps": (loop, task),
            f"a pipeline, {SCRIPT_STEPS} steps, the scripts' default": (
                loop,
                task | {"steps": SCRIPT_STEPS},
            ),
        }
        results = compare(sides, folder, args.device, args.rounds)
    about = (
        f"{machine(args.device == 'cpu')}\n\n{args.size} model of random weights, "
        f"{args.resolution} x {args.resolution} pixels, guidance 7.5, {args.rounds} rounds; "
        f"the pipeline generates {SCRIPT_BATCH} at a time."
    )
    publish(args, f"{about}\n\n{table(results)}")
