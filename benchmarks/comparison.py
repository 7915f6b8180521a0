"""The study's comparison, 8 variants x 6 prompts, beside a plain loop over a diffusers pipeline."""

from __future__ import annotations

from pathlib import Path

from .drawings import compare, table
from .material import Model, Size, write_lora, write_model
from .matrix import PROMPTS
from .options import common, parsed, publish, working_folder
from .table import machine

TUNED, LORAS = 3, 4


def write_variants(folder: Path, model: Model, size: Size) -> dict[str, str | None]:
    """The base, full fine-tunes and LoRAs of random weights: files by the variant's name."""
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
    """Measures, prints the table, and writes it if asked."""
    parser = common("comparison", __doc__ or "")
    parser.add_argument("--steps", type=int, default=35, help="of the sampler")
    given = parsed(parser, arguments)
    with working_folder(given) as folder:
        model = write_model(folder, given.size)
        task = {
            "model": str(model.folder),
            "checkpoint": str(model.checkpoint),
            "variants": write_variants(folder, model, given.size),
            "prompts": PROMPTS,
            "negative": "blurry",
            "device": given.device,
            "size": given.resolution,
            "steps": given.steps,
        }
        sides = {
            "Likeness": ("our_cells", task),
            "a pipeline": ("pipeline_cells", task),
        }
        results = compare(sides, folder, given.device, given.rounds)
    about = (
        f"{machine(given.device == 'cpu')}\n\n{given.size} model of random weights: the base, "
        f"{TUNED} full fine-tunes and {LORAS} LoRAs x {len(PROMPTS)} prompts, {given.resolution} "
        f"x {given.resolution} pixels, {given.steps} steps of Euler, guidance 7.5, {given.rounds} "
        "rounds. Loading of the variants counts."
    )
    publish(given, f"{about}\n\n{table(results)}")
