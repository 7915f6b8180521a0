"""Class images, beside a diffusers pipeline as the DreamBooth scripts use it."""

from __future__ import annotations

from likeness.trainers.recipe import Prior

from .drawings import compare, table
from .material import write_model
from .options import common, parsed, publish, working_folder
from .table import machine

SCRIPT_BATCH, SCRIPT_STEPS = 4, 50  # what the scripts and the pipeline take by themselves


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it if asked."""
    parser = common("class-images", __doc__ or "")
    parser.add_argument("--count", type=int, help="default: 4 on the CPU, else 500")
    parser.add_argument("--steps", type=int, default=Prior().steps)
    given = parsed(parser, arguments)
    count = given.count or (4 if given.device == "cpu" else 500)
    with working_folder(given) as folder:
        task = {
            "model": str(write_model(folder, given.size).folder),
            "device": given.device,
            "size": given.resolution,
            "count": count,
            "steps": given.steps,
            "batch": SCRIPT_BATCH,
            "prompt": "a photo of man",
        }
        loop = "pipeline_class_images"
        sides = {
            f"Likeness, {given.steps} steps": ("our_class_images", task),
            f"a pipeline, {given.steps} steps": (loop, task),
            f"a pipeline, {SCRIPT_STEPS} steps, the scripts' default": (
                loop,
                task | {"steps": SCRIPT_STEPS},
            ),
        }
        results = compare(sides, folder, given.device, given.rounds)
    about = (
        f"{machine(given.device == 'cpu')}\n\n{given.size} model of random weights, "
        f"{given.resolution} x {given.resolution} pixels, guidance 7.5, {given.rounds} rounds; "
        f"the pipeline draws {SCRIPT_BATCH} at a time."
    )
    publish(given, f"{about}\n\n{table(results)}")
