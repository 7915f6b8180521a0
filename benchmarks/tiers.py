"""Memory tiers: a GPU's peak memory in a training's loop, beside what is estimated for it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from likeness.trainers.errors import RecipeError
from likeness.trainers.memory_tiers import TIERS, check_memory_field
from likeness.trainers.recipe import Recipe

from .options import common_parser, parse_options, publish, temporary_folder, working_folder
from .setting import Setting, our_command, recipe_of, setting_of
from .table import gigabytes, machine, markdown

WORKER = Path(__file__).with_name("tier_worker.py")
STEPS = 2  # the second one finds the optimizer's state in memory
_HEAD = ("training", "tier", "GB before the first step", "peak, GB", "estimated peak, GB")


def tiers_of(recipe: Recipe) -> list[Recipe]:
    """The recipe in each memory tier that it can use on a GPU with bf16 and bitsandbytes."""
    found = []
    for tier in TIERS:
        named = recipe.changed(compute={"memory": tier.name})
        try:
            check_memory_field(named)
        except RecipeError:
            continue
        found.append(named)
    return found


def measure(recipe: Recipe, setting: Setting, folder: Path) -> dict[str, float] | str:
    """Bytes `before` the first step, at the `peak`, and as `estimated`; or an error."""
    with temporary_folder(folder) as place:
        files = our_command(recipe, setting, place, cache=folder / "cache").arguments[1:]
        command = [sys.executable, str(WORKER), setting.device, str(folder), *files]
        environment = dict(os.environ, HF_HUB_OFFLINE="1")
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(case: str, recipe: Recipe, found: dict[str, float] | str) -> list[str]:
    """A row of the table."""
    name = f"{case}, {recipe.compute.precision}"
    if isinstance(found, str):
        return [name, recipe.compute.memory, f"not measured: {found}"]
    sizes = (gigabytes(found[key]) for key in ("before", "peak", "estimated"))
    return [name, recipe.compute.memory, *sizes]


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = common_parser("tiers", __doc__ or "")
    parser.add_argument("--only", choices=("lora", "dreambooth"), action="append")
    parser.add_argument("--tier", choices=[tier.name for tier in TIERS], action="append")
    parser.set_defaults(resolution=512)
    args = parse_options(parser, arguments)
    args.optimizer, args.steps = "adamw8bit", STEPS
    rows = []
    with working_folder(args) as folder:
        for case in args.only or ("lora", "dreambooth"):
            setting = setting_of(args, folder, "bf16", case)
            recipe = recipe_of(case, setting).changed(schedule={"steps": STEPS})
            for one in tiers_of(recipe):
                if not args.tier or one.compute.memory in args.tier:
                    rows.append(row(case, one, measure(one, setting, folder)))
                    print(" | ".join(rows[-1]), flush=True)
    publish(args, f"{about(args)}\n\n{markdown(_HEAD, rows)}")


def about(args: argparse.Namespace) -> str:
    """Describes the measurement and the machine."""
    stand_in = "A stand-in for a GPU, which counts tensors (CONTRIBUTING.md)\n"
    return (
        f"{stand_in if args.device == 'cpu' else ''}{machine(args.device == 'cpu')}\n\n"
        f"{args.size} model of random weights, {args.resolution} x {args.resolution} pixels, batch "
        f"1 with one class image, adamw8bit, {STEPS} steps"
        f"{', without CUDA graphs, which keep the gradients' if args.device == 'cpu' else ''}. The "
        "estimate includes what graphs, libraries and the allocator take; the count, of tensors, "
        "does not."
    )
