"""Commands of this room: draw."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..trainers.errors import RecipeError
from ..trainers.recipe import check_name


def add_commands(commands: Any) -> None:
    """Adds this room's commands to the parser."""
    draw = commands.add_parser("draw", help="draw a picture for each prompt")
    draw.add_argument("prompt", nargs="+")
    draw.add_argument("--base", type=Path, required=True)
    draw.add_argument("--adapter", type=Path, help="a LoRA, or a DreamBooth checkpoint")
    draw.add_argument("--strength", type=float, default=1.0)
    draw.add_argument("--tokenizer", type=Path, action="append", default=[])
    draw.add_argument("--negative", default="")
    draw.add_argument("--width", type=int, default=512)
    draw.add_argument("--height", type=int, default=512)
    draw.add_argument("--steps", type=int, default=35)
    draw.add_argument("--guidance", type=float, default=7.5)
    draw.add_argument("--seed", type=int, default=0)
    draw.add_argument("--device", default="cpu")
    draw.add_argument("--name", default="picture", help="files are <output>/<name>-0.png, …")
    draw.add_argument("--output", type=Path, default=Path("output"))
    draw.set_defaults(run=_draw)


def _draw(given: argparse.Namespace) -> int:
    from PIL import Image

    from .sample import draw, load_with_adapter

    try:
        check_name(given.name)
    except ValueError as error:
        raise RecipeError(f"--name {given.name!r}: {error}") from None
    if given.width % 8 or given.height % 8 or min(given.width, given.height) < 64:
        raise RecipeError("--width and --height are multiples of 8, at least 64.")
    model = load_with_adapter(
        given.base,
        given.adapter,
        tokenizers=given.tokenizer,
        strength=given.strength,
        device=given.device,
    )
    pictures = draw(
        model,
        given.prompt,
        negative=given.negative,
        width=given.width,
        height=given.height,
        steps=given.steps,
        guidance=given.guidance,
        seed=given.seed,
    )
    given.output.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        path = given.output / f"{given.name}-{index}.png"
        Image.fromarray(picture).save(path)
        print(path)
    return 0
